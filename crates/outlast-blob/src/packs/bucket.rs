//! Buckets by their address, as people give it.

use super::{ObjectPacks, PackStore};
use object_store::aws::AmazonS3Builder;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Time for which a request is tried again before its caller has the error.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for one try.
const TRY: Duration = Duration::from_secs(30);

/// Variables that name the server, the first one that is set first.
const ENDPOINTS: [&str; 3] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];

/// The packs at `s3://BUCKET[/PREFIX]`. Region, credentials and endpoint are those of the usual
/// variables: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`,
/// `AWS_ENDPOINT_URL`, and `AWS_ALLOW_HTTP=true` for a server without TLS. Nothing is asked of
/// the bucket yet. A provider of cryptography must be installed for rustls.
///
/// # Errors
/// `InvalidInput` when this is no such address or the variables do not do.
pub fn open_bucket(address: &str) -> io::Result<Arc<dyn PackStore>> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let place = address.trim_end_matches('/');
    let Some(path) = place.strip_prefix("s3://") else {
        return Err(wrong(format!("{address}: give a bucket as s3://BUCKET/PREFIX")));
    };
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    if bucket.is_empty() {
        return Err(wrong(format!("{address}: names no bucket")));
    }
    let retry = RetryConfig { max_retries: 50, retry_timeout: PATIENCE, ..RetryConfig::default() };
    let mut client = ClientOptions::new().with_timeout(TRY).with_allow_http(allows_http());
    if let Some(host) = ENDPOINTS.iter().find_map(|name| loopback(&std::env::var(name).ok()?)) {
        // A proxy of the environment is for other machines. It is replaced by one for nothing, since
        // there is no way to ask for none.
        client = client.with_proxy_url("http://127.0.0.1:9").with_proxy_excludes(host);
    }
    let built = AmazonS3Builder::from_env()
        .with_client_options(client)
        .with_retry(retry)
        .with_bucket_name(bucket)
        .build();
    let s3 = built.map_err(|e| wrong(format!("{address}: {e}")))?;
    let store: Arc<dyn ObjectStore> = match prefix {
        "" => Arc::new(s3),
        prefix => Arc::new(PrefixStore::new(s3, prefix)),
    };
    Ok(Arc::new(ObjectPacks::new(store, place)?))
}

/// The host of an endpoint, where that is an address of this machine.
fn loopback(endpoint: &str) -> Option<String> {
    let authority = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    };
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let own = name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    own.then_some(name)
}

fn allows_http() -> bool {
    std::env::var("AWS_ALLOW_HTTP").is_ok_and(|v| matches!(v.as_str(), "1" | "true" | "TRUE"))
}

#[cfg(test)]
mod tests {
    use super::{loopback, open_bucket};

    #[test]
    fn an_endpoint_of_this_machine_is_known() {
        for (endpoint, host) in [
            ("http://127.0.0.1:9000", Some("127.0.0.1")),
            ("https://user@LocalHost:9000/x", Some("localhost")),
            ("http://[::1]:9000/", Some("::1")),
            ("minio.localhost", Some("minio.localhost")),
            ("http://10.0.0.1:9000", None),
            ("https://s3.eu-central-1.amazonaws.com", None),
            ("https://localhost.example.org", None),
            ("", None),
        ] {
            assert_eq!(loopback(endpoint).as_deref(), host, "{endpoint}");
        }
    }

    #[test]
    fn what_is_no_bucket_is_refused() {
        for wrong in ["bucket", "s3://", "s3:///prefix", "https://bucket/prefix", ""] {
            let error = open_bucket(wrong).err().map(|e| e.kind());
            assert_eq!(error, Some(std::io::ErrorKind::InvalidInput), "{wrong}");
        }
    }
}
