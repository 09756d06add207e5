//! With what the connections of a listener are encrypted.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use rustls::ServerConfig;
use x509_cert::der::DateTime;

/// The name of HTTP/2 in TLS. RFC 9113, 3.2.
pub(crate) const HTTP2: &[u8] = b"h2";

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// With what new connections are served.
pub(crate) struct Encryption {
    current: RwLock<Current>,
    /// The day on which the log was last told that the certificate is not valid, counted from 1970.
    told: AtomicU64,
}

struct Current {
    config: Arc<ServerConfig>,
    certificate: OwnCertificate,
}

/// What is known of the certificate that clients are shown.
#[derive(Clone, Debug)]
pub(crate) struct OwnCertificate {
    pub(crate) path: PathBuf,
    /// Who it is for.
    pub(crate) subject: String,
    /// The first moment at which it is valid, since 1970.
    pub(crate) begin: Duration,
    /// The last one.
    pub(crate) end: Duration,
}

/// What the clock says of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    NotYet,
    Now,
    Over,
}

impl Encryption {
    pub(crate) fn new(config: ServerConfig, certificate: OwnCertificate) -> Encryption {
        Encryption {
            current: RwLock::new(Current::new(config, certificate)),
            told: AtomicU64::new(u64::MAX),
        }
    }

    /// Serves new connections with this from now on. What is open goes on as it was.
    pub(crate) fn replace(&self, config: ServerConfig, certificate: OwnCertificate) {
        *self.current.write() = Current::new(config, certificate);
        self.told.store(u64::MAX, Ordering::Relaxed);
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().config)
    }

    pub(crate) fn certificate(&self) -> OwnCertificate {
        self.current.read().certificate.clone()
    }

    /// When the certificate that clients are shown runs out.
    pub(crate) fn expires(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.current.read().certificate.end
    }

    /// What the log is to be told if the certificate is not valid now; once a day. `now` is since 1970.
    pub(crate) fn complaint(&self, now: Duration) -> Option<String> {
        let current = self.current.read();
        let complaint = current.certificate.complaint(now)?;
        let day = now.as_secs() / DAY.as_secs();
        let is_told = self.told.swap(day, Ordering::Relaxed) == day;
        (!is_told).then_some(complaint)
    }
}

impl Current {
    fn new(config: ServerConfig, certificate: OwnCertificate) -> Current {
        let config = Arc::new(config);
        Current {
            config,
            certificate,
        }
    }
}

impl OwnCertificate {
    pub(crate) fn validity(&self, now: Duration) -> Validity {
        match () {
            () if now < self.begin => Validity::NotYet,
            () if now > self.end => Validity::Over,
            () => Validity::Now,
        }
    }

    /// What is to be said of it if it is not valid.
    fn complaint(&self, now: Duration) -> Option<String> {
        let (path, subject) = (self.path.display(), &self.subject);
        match self.validity(now) {
            Validity::Now => None,
            Validity::NotYet => Some(format!(
                "{path}: the certificate of {subject} is not valid before {}: clients will refuse it, unless this \
                 machine's clock is slow",
                date(self.begin)
            )),
            Validity::Over => Some(format!(
                "{path}: the certificate of {subject} has expired at {}, {} d ago: clients will refuse it, unless this \
                 machine's clock is fast. Put a new one there, and reload it (SIGHUP)",
                date(self.end),
                (now - self.end).as_secs() / DAY.as_secs()
            )),
        }
    }
}

/// As `2026-11-23T14:10:56Z`.
pub(crate) fn date(since_1970: Duration) -> String {
    let date = DateTime::from_unix_duration(since_1970);
    date.map_or_else(|_| "another age".to_owned(), |it| it.to_string())
}

/// The time by this machine's clock, since 1970. One that is before that is of a machine that has no idea of it.
pub(crate) fn since_1970() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default()
}

impl fmt::Debug for Encryption {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Encryption")
            .field("certificate", &self.certificate())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rustls::server::ResolvesServerCertUsingSni;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn config() -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()))
    }

    fn valid(begin: Duration, end: Duration) -> OwnCertificate {
        OwnCertificate {
            path: "chain.pem".into(),
            subject: "CN=it".to_owned(),
            begin,
            end,
        }
    }

    #[test]
    fn a_certificate_that_is_not_valid_is_complained_of_once_a_day() {
        let encryption = Encryption::new(config(), valid(10 * DAY, 20 * DAY));
        let complaint = |now| encryption.complaint(now);
        assert_eq!(
            complaint(9 * DAY).unwrap(),
            "chain.pem: the certificate of CN=it is not valid before 1970-01-11T00:00:00Z: clients will refuse it, unless \
             this machine's clock is slow"
        );
        assert_eq!(complaint(9 * DAY + HOUR), None);
        // Its first and last moments are its own. RFC 5280, 4.1.2.5.
        assert_eq!(complaint(10 * DAY), None);
        assert_eq!(complaint(20 * DAY), None);
        assert!(complaint(20 * DAY + HOUR).unwrap().contains(" 0 d ago"));
        assert_eq!(complaint(20 * DAY + 2 * HOUR), None);
        assert_eq!(
            complaint(22 * DAY + HOUR).unwrap(),
            "chain.pem: the certificate of CN=it has expired at 1970-01-21T00:00:00Z, 2 d ago: clients will refuse it, \
             unless this machine's clock is fast. Put a new one there, and reload it (SIGHUP)"
        );
        // Another one is another matter, also on the same day.
        encryption.replace(config(), valid(10 * DAY, 21 * DAY));
        assert!(complaint(22 * DAY + HOUR).unwrap().contains(" 1 d ago"));
        encryption.replace(config(), valid(10 * DAY, 30 * DAY));
        assert_eq!(complaint(22 * DAY + HOUR), None);
    }
}
