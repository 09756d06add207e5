//! Certificates, and with which of them clients are served.

mod certificate;
mod error;
mod key;
mod pem;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error as RustlsError, InconsistentKeys, RootCertStore, ServerConfig};

use self::certificate::Chain;
use self::pem::{certificates, malformed, private_key};
use crate::logging;
use crate::sockets::encryption::{
    date, since_1970, Encryption, OwnCertificate, Validity, DAY, HTTP2,
};

pub use self::error::TlsError;

/// How many sessions are remembered, for clients to resume. One takes some 200 bytes.
const SESSIONS: usize = 256;

/// TLS for a listener, with or without certificates of the clients. For [`Listen::tls`].
///
/// TLS 1.2 and 1.3, with the cipher suites that [rustls] holds to be safe; of the application
/// protocols (ALPN) HTTP/2 only, which every gRPC client offers. A clone is the same: one may be
/// given to several listeners, and [`reload`](Self::reload) is for all of them.
///
/// ```no_run
/// use touchdown::{Listen, Server, Tls};
///
/// let tls = Tls::from_pem_files("/etc/greeter/chain.pem", "/etc/greeter/key.pem")
///     .client_ca("/etc/greeter/clients.pem")
///     .load()?;
/// let server = Server::builder()
///     .listen(Listen::new("0.0.0.0:50051").tls(tls))
///     .address("unix:/run/greeter.sock");
/// # Ok::<(), touchdown::TlsError>(())
/// ```
///
/// # New certificates
///
/// SIGHUP makes a server with a lifecycle of its own read the files again. If the lifecycle is
/// shared, the program says so where it builds that:
///
/// ```no_run
/// # use touchdown::{lifecycle::Lifecycle, Tls};
/// # let tls = Tls::from_pem_files("chain.pem", "key.pem").load()?;
/// let builder = Lifecycle::builder().on_reload("tls", move || Ok(tls.reload()?));
/// # Ok::<(), touchdown::TlsError>(())
/// ```
///
/// Connections that are open go on as they were; the next ones are served with what was read.
///
/// # Clocks
///
/// A board may start in 1970 and hear of the time later, or take a time in the future for the right one. A program
/// that did not start for that reason could not be repaired from afar either. So a certificate that is not valid yet, or not
/// any more, is no error: it is served, and the log says so at WARN when it is read, and once a day as long as clients
/// come. Who would have no server instead says [`require_valid_dates`](TlsFiles::require_valid_dates).
/// [`days_left`](Self::days_left) is for a gauge. Certificates of clients can only be judged by the
/// clock, and are refused until it is right.
///
/// # Limits
///
/// Certificate revocation lists are not read. A client with a certificate does not resume sessions, so
/// that its certificate is looked at for every connection.
///
/// [`Listen::tls`]: crate::Listen::tls
/// [rustls]: https://docs.rs/rustls
#[derive(Clone)]
pub struct Tls {
    inner: Arc<Inner>,
}

struct Inner {
    files: TlsFiles,
    encryption: Arc<Encryption>,
    /// Held while the files are read, so that what was read last is what holds.
    reloading: Mutex<()>,
}

/// The files of a [`Tls`].
#[derive(Clone, Debug)]
#[must_use = "nothing is read before `load`"]
pub struct TlsFiles {
    chain: PathBuf,
    key: PathBuf,
    clients: Clients,
    valid_alone: bool,
}

#[derive(Clone, Debug)]
enum Clients {
    Anybody,
    /// The file with the CAs.
    Certified(PathBuf),
    CertifiedOrAnybody(PathBuf),
}

impl Tls {
    /// Begins with the server's own certificate, followed by those of the CAs between it and the
    /// one that clients know, and its private key (PKCS #8, PKCS #1 or SEC 1, not encrypted). Both
    /// are PEM, and may be the same file. The key is for ECDSA on the curve P-256 or P-384, for Ed25519, or for RSA with 2048 to
    /// 4096 bits: what [ring](https://docs.rs/ring) signs with.
    pub fn from_pem_files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> TlsFiles {
        TlsFiles {
            chain: chain.into(),
            key: key.into(),
            clients: Clients::Anybody,
            valid_alone: false,
        }
    }

    /// Reads the files again. Connections that are open go on as they were; the next ones are
    /// served with what was read.
    ///
    /// # Errors
    ///
    /// [`TlsError`], and then everything stays as it was. A certificate that has expired is one only if the
    /// one before has not, or if [such are refused](TlsFiles::require_valid_dates).
    pub fn reload(&self) -> Result<(), TlsError> {
        let Inner {
            files,
            encryption,
            reloading,
        } = &*self.inner;
        let _alone = reloading.lock();
        let now = since_1970();
        let (config, certificate) = files.read()?;
        // Clients take the one before, and would refuse this one. One that is not valid yet does replace it: if this machine's
        // clock is slow, it is valid for everybody else, and nobody would reload it later.
        let was_valid = encryption.certificate().validity(now) == Validity::Now;
        if was_valid && certificate.validity(now) == Validity::Over {
            return Err(expired(&certificate));
        }
        encryption.replace(config, certificate);
        self.complain();
        Ok(())
    }

    /// The moment at which the server's own certificate runs out (notAfter). By this machine's clock it may be over. That of
    /// all certificates of a server: [`ServerHandle::certificate_expires`](super::ServerHandle::certificate_expires).
    pub fn expires(&self) -> SystemTime {
        self.inner.encryption.expires()
    }

    /// How many days of 24 hours the server's own certificate is valid from now on, by this machine's clock; less than 0 once it
    /// has run out. For a gauge: it is looked at anew each time, and costs no more than a lock for a moment.
    pub fn days_left(&self) -> f64 {
        let end = self.inner.encryption.certificate().end.as_secs_f64();
        (end - since_1970().as_secs_f64()) / DAY.as_secs_f64()
    }

    fn complain(&self) {
        if let Some(complaint) = self.inner.encryption.complaint(since_1970()) {
            logging::warn!("{complaint}");
        }
    }

    pub(super) fn encryption(&self) -> Arc<Encryption> {
        Arc::clone(&self.inner.encryption)
    }

    pub(super) fn is_same(&self, other: &Tls) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tls")
            .field("files", &self.inner.files)
            .finish_non_exhaustive()
    }
}

impl TlsFiles {
    /// Lets no client in without a certificate of one of the CAs in this file: mutual TLS.
    pub fn client_ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.clients = Clients::Certified(path.into());
        self
    }

    /// Asks clients for a certificate of one of the CAs in this file, and lets those in, too, that
    /// have none. Which calls they may make is for an [`Interceptor`](super::Interceptor) to say,
    /// by [`Call::peer_certificate`](super::Call::peer_certificate).
    pub fn client_ca_optional(mut self, path: impl Into<PathBuf>) -> Self {
        self.clients = Clients::CertifiedOrAnybody(path.into());
        self
    }

    /// Refuses a certificate of the server's own that has expired or is not valid yet by this machine's clock: [`load`](Self::load)
    /// and [`reload`](Tls::reload) fail. By default it is served, for the reasons in [`Tls`](Tls#clocks). For servers whose
    /// clocks are right and which are started by hand, or behind others that go on.
    pub fn require_valid_dates(mut self, require: bool) -> Self {
        self.valid_alone = require;
        self
    }

    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub fn load(self) -> Result<Tls, TlsError> {
        let (config, certificate) = self.read()?;
        let encryption = Arc::new(Encryption::new(config, certificate));
        let tls = Tls {
            inner: Arc::new(Inner {
                files: self,
                encryption,
                reloading: Mutex::default(),
            }),
        };
        tls.complain();
        Ok(tls)
    }

    fn read(&self) -> Result<(ServerConfig, OwnCertificate), TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates = certificates(&self.chain)?;
        let chain = Chain::parse(&self.chain, &certificates)?;
        let own = chain.own()?;
        match own.validity(since_1970()) {
            Validity::Over if self.valid_alone => return Err(expired(&own)),
            Validity::NotYet if self.valid_alone => {
                let (path, from) = (own.path, date(own.begin));
                return Err(TlsError::NotYetValid { path, from });
            }
            _ => {}
        }
        let key = self.signing_key(&provider, &chain, certificates, private_key(&self.key)?)?;
        let verifier = self.clients.verifier(&provider)?;
        let asks_clients = verifier.offer_client_auth();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| malformed(&self.chain, error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![HTTP2.to_vec()];
        if asks_clients {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        }
        chain.warn(since_1970());
        Ok((config, own))
    }

    /// The key, with the certificates that it belongs to.
    fn signing_key(
        &self,
        provider: &CryptoProvider,
        chain: &Chain<'_>,
        certificates: Vec<rustls::pki_types::CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<CertifiedKey, TlsError> {
        let signing = provider.key_provider.load_private_key(key.clone_key());
        let signing = signing.map_err(|_| malformed(&self.key, key::words(&key)))?;
        let certified = CertifiedKey::new(certificates, signing);
        match certified.keys_match() {
            Ok(()) | Err(RustlsError::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
            Err(RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let place = certified
                    .key
                    .public_key()
                    .and_then(|it| chain.place_of(&it));
                Err(match place {
                    Some(place) => TlsError::WrongOrder {
                        certificate: self.chain.clone(),
                        place,
                    },
                    None => TlsError::WrongKey {
                        key: self.key.clone(),
                        certificate: self.chain.clone(),
                    },
                })
            }
            Err(error) => Err(malformed(&self.chain, error.to_string())),
        }
    }
}

fn expired(certificate: &OwnCertificate) -> TlsError {
    let (path, since) = (certificate.path.clone(), date(certificate.end));
    TlsError::Expired { path, since }
}

impl Clients {
    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let (path, optional) = match self {
            Clients::Anybody => return Ok(WebPkiClientVerifier::no_client_auth()),
            Clients::Certified(path) => (path, false),
            Clients::CertifiedOrAnybody(path) => (path, true),
        };
        let mut roots = RootCertStore::empty();
        let (_, ignored) = roots.add_parsable_certificates(certificates(path)?);
        if ignored > 0 {
            let path = path.display();
            logging::warn!("{path}: {ignored} certificates cannot be used as those of CAs");
        }
        let provider = Arc::clone(provider);
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        if optional {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map_err(|_| TlsError::NoCa(path.clone()))
    }
}
