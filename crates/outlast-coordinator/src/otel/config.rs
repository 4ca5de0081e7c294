//! The address of the collector and the resource's attributes: from the endpoint that the user gave and
//! from OpenTelemetry's standard variables.

use super::ids::Sampler;
use percent_encoding::percent_decode_str;
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use std::time::Duration;

/// Entries that a list of headers or resource attributes may have.
const MAX_LIST: usize = 128;

/// The configuration of exports of traces and metrics by OTLP (http/protobuf).
#[derive(Clone)]
pub struct OtelConfig {
    pub(super) traces: Option<Target>,
    pub(super) metrics: Option<Target>,
    /// Attributes of the resource; the service's name among them.
    pub(super) attributes: Vec<(String, String)>,
    pub(super) sampler: Sampler,
    /// Between two deliveries of metrics.
    pub(super) interval: Duration,
}

/// The address of one kind of telemetry.
#[derive(Clone)]
pub(super) struct Target {
    pub url: Url,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub timeout: Duration,
}

impl std::fmt::Debug for OtelConfig {
    // Headers hold secrets, and so may addresses.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtelConfig").field("attributes", &self.attributes).finish_non_exhaustive()
    }
}

impl OtelConfig {
    /// From the base address that the user gave (`http://collector:4318`), which precedes
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, and what `variable` says of OpenTelemetry's variables. None
    /// when there is nowhere to send to, or when they say that nothing is to be sent.
    ///
    /// # Errors
    /// What cannot be used, and what to write instead.
    pub fn new(
        endpoint: Option<&str>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<OtelConfig>, String> {
        let get = |name: &str| variable(name).filter(|v| !v.trim().is_empty());
        if get("OTEL_SDK_DISABLED").is_some_and(|v| v.trim().eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let target = |signal: &str| target(signal, endpoint, &get);
        let (traces, metrics) = (target("TRACES")?, target("METRICS")?);
        if traces.is_none() && metrics.is_none() {
            return Ok(None);
        }
        let mut attributes = match get("OTEL_RESOURCE_ATTRIBUTES") {
            Some(text) => list("OTEL_RESOURCE_ATTRIBUTES", &text)?,
            None => Vec::new(),
        };
        let named = attributes.iter().any(|(key, _)| key == "service.name");
        if let Some(name) = get("OTEL_SERVICE_NAME") {
            attributes.retain(|(key, _)| key != "service.name");
            attributes.push(("service.name".into(), name));
        } else if !named {
            attributes.push(("service.name".into(), "outlast-coordinator".into()));
        }
        let interval = milliseconds("OTEL_METRIC_EXPORT_INTERVAL", &get)?;
        let interval = interval.unwrap_or(Duration::from_secs(60)).max(Duration::from_millis(100));
        let share = get("OTEL_TRACES_SAMPLER_ARG");
        let sampler = Sampler::new(get("OTEL_TRACES_SAMPLER").as_deref(), share.as_deref())?;
        Ok(Some(OtelConfig { traces, metrics, attributes, sampler, interval }))
    }

    /// Describes for people where traces and metrics go, without what may be secret.
    pub fn addresses(&self) -> String {
        let of = |what: &str, target: &Option<Target>| {
            let url = &target.as_ref()?.url;
            let port = url.port().map_or_else(String::new, |p| format!(":{p}"));
            let (scheme, host) = (url.scheme(), url.host_str().unwrap_or_default());
            Some(format!("{what} to {scheme}://{host}{port}{}", url.path()))
        };
        let all = [of("traces", &self.traces), of("metrics", &self.metrics)];
        all.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

type Get<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Returns the settings of the variables for one kind of telemetry. Its own precede those of all kinds.
fn target(signal: &str, endpoint: Option<&str>, get: Get<'_>) -> Result<Option<Target>, String> {
    let exporter = format!("OTEL_{signal}_EXPORTER");
    match get(&exporter).as_deref().map(str::trim) {
        None | Some("otlp") => {}
        Some("none") => return Ok(None),
        Some(other) => return Err(format!("{exporter}={other}: there are otlp and none")),
    }
    let either = |what: &str| {
        let names =
            [format!("OTEL_EXPORTER_OTLP_{signal}_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")];
        names.into_iter().find_map(|name| get(&name).map(|value| (name, value)))
    };
    let own = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
    let path = format!("v1/{}", signal.to_ascii_lowercase());
    let url = match (endpoint, get(&own), get("OTEL_EXPORTER_OTLP_ENDPOINT")) {
        (Some(text), ..) => below(address("the OTLP endpoint", text)?, &path),
        (None, Some(text), _) => address(&own, &text)?,
        (None, None, Some(text)) => below(address("the OTLP endpoint", &text)?, &path),
        (None, None, None) => return Ok(None),
    };
    if let Some((name, value)) = either("PROTOCOL").filter(|(_, v)| v.trim() != "http/protobuf") {
        return Err(format!(
            "{name}={value}: http/protobuf is all that is spoken here; unset it, and give the \
             collector's HTTP port (4318)"
        ));
    }
    if let Some((name, value)) = either("COMPRESSION").filter(|(_, v)| v.trim() != "none") {
        return Err(format!("{name}={value}: nothing is compressed here; unset it"));
    }
    let headers = match either("HEADERS") {
        Some((name, text)) => {
            let pairs = list(&name, &text)?.into_iter();
            // Its value may be a secret, and is not repeated.
            let header = |(key, value): (String, String)| {
                let wrong = || format!("{name}: header {key:?} cannot be sent");
                let mut text = HeaderValue::from_str(&value).map_err(|_| wrong())?;
                text.set_sensitive(true);
                Ok((HeaderName::from_bytes(key.as_bytes()).map_err(|_| wrong())?, text))
            };
            pairs.map(header).collect::<Result<_, String>>()?
        }
        None => Vec::new(),
    };
    let timeout = milliseconds(&format!("OTEL_EXPORTER_OTLP_{signal}_TIMEOUT"), get)?;
    let timeout =
        timeout.map_or_else(|| milliseconds("OTEL_EXPORTER_OTLP_TIMEOUT", get), |t| Ok(Some(t)))?;
    let timeout = timeout.unwrap_or(Duration::from_secs(10));
    Ok(Some(Target { url, headers, timeout }))
}

fn address(of: &str, text: &str) -> Result<Url, String> {
    let wrong = |why: &str| format!("{of}: {why}; write an address such as http://collector:4318");
    let url = Url::parse(text.trim()).map_err(|e| wrong(&e.to_string()))?;
    // `collector:4318` is an address whose scheme is `collector`.
    match (url.scheme(), url.host_str()) {
        ("http" | "https", Some(_)) => Ok(url),
        _ => Err(wrong("it must begin with http:// or https://")),
    }
}

/// The address of one kind below the base of all.
fn below(mut base: Url, path: &str) -> Url {
    let whole = format!("{}/{path}", base.path().trim_end_matches('/'));
    base.set_path(&whole);
    base
}

fn milliseconds(name: &str, get: Get<'_>) -> Result<Option<Duration>, String> {
    let Some(text) = get(name) else { return Ok(None) };
    match text.trim().parse::<u64>() {
        Ok(ms) if (1..=86_400_000).contains(&ms) => Ok(Some(Duration::from_millis(ms))),
        _ => Err(format!("{name}={text}: must be milliseconds, from 1 to 86400000")),
    }
}

/// `key=value,key=value`, with what must be escaped as `%2C`.
fn list(name: &str, text: &str) -> Result<Vec<(String, String)>, String> {
    let decode = |part: &str| percent_decode_str(part.trim()).decode_utf8().map(String::from);
    let wrong = || format!("{name}: must be like key=value,key2=value2");
    let mut all = Vec::new();
    for item in text.split(',').filter(|item| !item.trim().is_empty()) {
        let (key, value) = item.split_once('=').ok_or_else(wrong)?;
        let (key, value) = (decode(key).map_err(|_| wrong())?, decode(value).map_err(|_| wrong())?);
        if key.is_empty() {
            return Err(wrong());
        }
        all.push((key, value));
    }
    if all.len() > MAX_LIST {
        return Err(format!("{name}: more than {MAX_LIST} entries"));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(endpoint: Option<&str>, set: &[(&str, &str)]) -> Result<Option<OtelConfig>, String> {
        let get =
            |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        OtelConfig::new(endpoint, &get)
    }

    fn urls(config: &OtelConfig) -> [Option<&str>; 2] {
        [&config.traces, &config.metrics].map(|t| t.as_ref().map(|t| t.url.as_str()))
    }

    #[test]
    fn nothing_is_sent_unless_somebody_says_where() {
        assert!(made(None, &[]).unwrap().is_none());
        assert!(made(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]).unwrap().is_none());
        let off = [("OTEL_SDK_DISABLED", "true")];
        assert!(made(Some("http://c:4318"), &off).unwrap().is_none());
    }

    #[test]
    fn the_flag_precedes_the_variables_and_a_signal_precedes_all() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c/otlp/");
        let config = made(None, &[base]).unwrap().unwrap();
        assert_eq!(
            urls(&config),
            [Some("https://c/otlp/v1/traces"), Some("https://c/otlp/v1/metrics")]
        );
        let config = made(Some("http://flag:4318"), &[base]).unwrap().unwrap();
        assert_eq!(urls(&config)[0], Some("http://flag:4318/v1/traces"));
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/as/it/is");
        let none = ("OTEL_METRICS_EXPORTER", "none");
        let config = made(None, &[base, own, none]).unwrap().unwrap();
        assert_eq!(urls(&config), [Some("http://t/as/it/is"), None]);
        assert_eq!(config.addresses(), "traces to http://t/as/it/is");
        let config = made(None, &[own]).unwrap().unwrap();
        assert_eq!(urls(&config), [Some("http://t/as/it/is"), None]);
    }

    #[test]
    fn lists_are_read_and_unescaped() {
        let config = made(
            Some("http://c:4318"),
            &[
                ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20a%2Cb, x-scope = 1"),
                ("OTEL_RESOURCE_ATTRIBUTES", "service.name=r,deployment.environment=lab"),
                ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
            ],
        );
        let config = config.unwrap().unwrap();
        let traces = config.traces.as_ref().unwrap();
        assert_eq!(traces.headers[0].1.to_str().unwrap(), "Bearer a,b");
        assert_eq!(traces.headers[1].0, "x-scope");
        assert_eq!(traces.timeout, Duration::from_secs(3));
        assert_eq!(config.interval, Duration::from_secs(5));
        assert_eq!(config.attributes[0], ("service.name".into(), "r".into()));
        assert!(!format!("{config:?}").contains("Bearer"));
        let name = ("OTEL_SERVICE_NAME", "mine");
        let config = made(Some("http://c"), &[name]).unwrap().unwrap();
        assert_eq!(config.attributes, [("service.name".into(), "mine".into())]);
    }

    #[test]
    fn mistakes_are_reported() {
        let error = |endpoint, set: &[_]| made(endpoint, set).unwrap_err();
        assert!(error(Some("collector:4318"), &[]).contains("http://collector:4318"));
        assert!(error(Some("http://"), &[]).contains("such as"));
        let at = Some("http://c:4318");
        assert!(error(at, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).contains("4318"));
        assert!(error(at, &[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]).contains("unset"));
        assert!(error(at, &[("OTEL_METRIC_EXPORT_INTERVAL", "1m")]).contains("milliseconds"));
        assert!(error(at, &[("OTEL_TRACES_EXPORTER", "zipkin")]).contains("none"));
        assert!(error(at, &[("OTEL_TRACES_SAMPLER", "sometimes")]).contains("always_on"));
        let secret = error(at, &[("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret")]);
        assert!(secret.contains("a b") && !secret.contains("secret"));
        assert!(error(at, &[("OTEL_RESOURCE_ATTRIBUTES", "novalue")]).contains("key=value"));
    }
}
