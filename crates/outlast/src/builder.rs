//! The settings of a client, and how one is made of them.

use crate::client::{Client, Notice, PATIENCE};
use crate::error::{Error, chain};
use crate::proxy::Via;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The settings of a client.
///
/// # Examples
/// ```
/// use outlast::Client;
/// use std::time::Duration;
///
/// let builder = Client::builder("https://tasks.example.org").patience(Duration::from_secs(10));
/// let client = builder.build()?;
/// assert_eq!(client.url(), "https://tasks.example.org:443");
/// # Ok::<(), outlast::Error>(())
/// ```
pub struct Builder {
    url: String,
    key: Option<String>,
    ca: Option<PathBuf>,
    patience: Duration,
    notice: Option<Arc<Notice>>,
}

impl Builder {
    /// Sets an API key of role submit or operate.
    ///
    /// # Examples
    /// ```
    /// use outlast::Client;
    ///
    /// let key = std::env::var("OUTLAST_API_KEY").ok();
    /// let client = Client::builder("http://127.0.0.1:7117").api_key(key).build()?;
    /// # Ok::<(), outlast::Error>(())
    /// ```
    pub fn api_key(mut self, key: Option<String>) -> Self {
        self.key = key;
        self
    }
    /// Sets a PEM file of authorities to trust beside the system's.
    ///
    /// # Examples
    /// ```
    /// use outlast::{Client, Error};
    ///
    /// let builder = Client::builder("https://tasks.example.org").ca(Some("no-such-file.pem".into()));
    /// assert!(matches!(builder.build(), Err(Error::Setup(_))));
    /// ```
    pub fn ca(mut self, path: Option<PathBuf>) -> Self {
        self.ca = path;
        self
    }
    /// Sets the time for which a coordinator that cannot be reached is tried again; default 60 s.
    ///
    /// # Examples
    /// ```
    /// use outlast::Client;
    /// use std::time::Duration;
    ///
    /// // One try, and no more.
    /// let client = Client::builder("http://127.0.0.1:7117").patience(Duration::ZERO).build()?;
    /// # Ok::<(), outlast::Error>(())
    /// ```
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
    /// Sets a function that is called with the reason when the coordinator is lost, and with `None` when it
    /// is back.
    ///
    /// # Examples
    /// ```
    /// use outlast::{Client, Error};
    /// use std::time::Duration;
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let client = Client::builder("http://127.0.0.1:1") // nobody listens there
    ///     .patience(Duration::from_millis(300))
    ///     .on_outage(|reason| match reason {
    ///         Some(reason) => eprintln!("lost: {reason}"),
    ///         None => eprintln!("back"),
    ///     })
    ///     .build()?;
    /// assert!(matches!(client.counts().await, Err(Error::Unreachable { .. })));
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    pub fn on_outage(mut self, notice: impl Fn(Option<&str>) + Send + Sync + 'static) -> Self {
        self.notice = Some(Arc::new(notice));
        self
    }
    /// Makes the client. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Setup`] when the address or the certificates cannot be used.
    ///
    /// # Examples
    /// ```
    /// use outlast::{Client, Error};
    ///
    /// assert!(Client::builder("127.0.0.1:7117").build().is_ok());
    /// assert!(matches!(Client::builder("ftp://127.0.0.1").build(), Err(Error::Setup(_))));
    /// ```
    pub fn build(self) -> Result<Client, Error> {
        // Somebody may have chosen another provider before: that one serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let setup = |e: String| Error::Setup(e);
        let mut http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .tcp_nodelay(true)
            .user_agent(concat!("outlast/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &self.ca {
            let named = |e: &dyn std::fmt::Display| setup(format!("{}: {e}", path.display()));
            let pem = std::fs::read(path).map_err(|e| named(&e))?;
            let certs = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| named(&e))?;
            if certs.is_empty() {
                return Err(named(&"holds no certificate"));
            }
            http = http.tls_certs_merge(certs);
        }
        let url = outlast_wire::Url::parse(&self.url).map_err(setup)?;
        let via = Via::of(&url, |name| std::env::var(name).ok());
        http = http.no_proxy();
        if let Some(via) = &via {
            let proxy = reqwest::Proxy::all(&via.url);
            let wrong = |e| setup(format!("{}: {}", via.variable, chain(&e)));
            http = http.proxy(proxy.map_err(wrong)?);
        }
        let via = via.map(|via| via.named());
        let http = http.build().map_err(|e| setup(e.to_string()))?;
        let (key, patience, notice) = (self.key, self.patience, self.notice);
        let (base, decided) = (url.http(), Arc::default());
        Ok(Client { http, base, via, url, key, decided, patience, notice })
    }
}

impl Client {
    /// Settings of a client of the coordinator at this address, such as `http://127.0.0.1:7117`; see
    /// [`outlast_wire::Url`] for what may be left out.
    ///
    /// # Examples
    /// ```
    /// use outlast::Client;
    ///
    /// let client = Client::builder("localhost").build()?;
    /// assert_eq!(client.url(), "http://localhost:7117");
    /// # Ok::<(), outlast::Error>(())
    /// ```
    pub fn builder(url: &str) -> Builder {
        let url = url.to_owned();
        Builder { url, key: None, ca: None, patience: PATIENCE, notice: None }
    }
}
