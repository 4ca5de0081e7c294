//! TLS as a client: whom to trust, and what to say when it fails.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

pub(crate) fn connector(ca: Option<&Path>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let name = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
            let certs = CertificateDer::pem_file_iter(path).map_err(|e| name(&e))?;
            for cert in certs {
                roots.add(cert.map_err(|e| name(&e))?).map_err(|e| name(&e))?;
            }
            if roots.is_empty() {
                return Err(name(&"holds no certificate"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(
                    "this system has no certificates; give the authority's with --ca".into()
                );
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned()).map_err(|e| format!("{host}: {e}"))
}

pub(crate) fn advice(at: &str, error: &io::Error) -> String {
    let text = error.to_string();
    let hint = if text.contains("UnknownIssuer") {
        "; its certificate's authority is not trusted here: give it with --ca"
    } else if text.contains("not valid for name") {
        "; its certificate is for another name: dial it by the name in the certificate"
    } else if text.contains("expired") || text.contains("not valid yet") {
        "; check the certificate's dates and this machine's clock"
    } else if text.contains("corrupt message") {
        "; it may not speak TLS: try http://"
    } else {
        ""
    };
    format!("{at}: {text}{hint}")
}
