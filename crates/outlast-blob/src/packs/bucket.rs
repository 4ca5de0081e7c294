//! Buckets by their address, as people give it.

use super::{ObjectPacks, PackStore};
use object_store::aws::AmazonS3Builder;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long a request is tried again before its caller hears of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for one try.
const TRY: Duration = Duration::from_secs(30);

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
    let client = ClientOptions::new().with_timeout(TRY).with_allow_http(allows_http());
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

fn allows_http() -> bool {
    std::env::var("AWS_ALLOW_HTTP").is_ok_and(|v| matches!(v.as_str(), "1" | "true" | "TRUE"))
}

#[cfg(test)]
mod tests {
    use super::open_bucket;

    #[test]
    fn what_is_no_bucket_is_refused() {
        for wrong in ["bucket", "s3://", "s3:///prefix", "https://bucket/prefix", ""] {
            let error = open_bucket(wrong).err().map(|e| e.kind());
            assert_eq!(error, Some(std::io::ErrorKind::InvalidInput), "{wrong}");
        }
    }
}
