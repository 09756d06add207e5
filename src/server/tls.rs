//! Certificates, and with which of them clients are served.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{Error as RustlsError, InconsistentKeys, RootCertStore, ServerConfig};
use x509_cert::der::Decode;
use x509_cert::Certificate;

use crate::logging;
use crate::sockets::encryption::{Encryption, HTTP2};

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
/// A board may start in 1970 and hear of the time later. So a certificate that is not valid yet is no
/// error, but a line in the log. Certificates of clients can only be judged by the clock, and are refused
/// until it is right.
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
    /// are PEM, and may be the same file.
    pub fn from_pem_files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> TlsFiles {
        TlsFiles {
            chain: chain.into(),
            key: key.into(),
            clients: Clients::Anybody,
        }
    }

    /// Reads the files again. Connections that are open go on as they were; the next ones are
    /// served with what was read.
    ///
    /// # Errors
    ///
    /// [`TlsError`], and then everything stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let _alone = self.inner.reloading.lock();
        self.inner.encryption.replace(self.inner.files.read()?);
        Ok(())
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

    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub fn load(self) -> Result<Tls, TlsError> {
        let encryption = Arc::new(Encryption::new(self.read()?));
        Ok(Tls {
            inner: Arc::new(Inner {
                files: self,
                encryption,
                reloading: Mutex::default(),
            }),
        })
    }

    fn read(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = certificates(&self.chain)?;
        // Before 1970 nothing has expired either.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        look_at_validity(&self.chain, &chain, now.unwrap_or_default())?;
        let key = private_key(&self.key)?;
        let verifier = self.clients.verifier(&provider)?;
        let asks_clients = verifier.offer_client_auth();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| malformed(&self.chain, error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| self.explain(error))?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        if asks_clients {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        }
        Ok(config)
    }

    fn explain(&self, error: RustlsError) -> TlsError {
        match error {
            RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::WrongKey {
                key: self.key.clone(),
                certificate: self.chain.clone(),
            },
            RustlsError::InvalidCertificate(error) => malformed(&self.chain, error),
            error => malformed(&self.key, error),
        }
    }
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

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

fn malformed(path: &Path, why: impl fmt::Display) -> TlsError {
    TlsError::Malformed {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::NoCertificate(path.to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(malformed(path, error)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        _ if is_encrypted(&text) => TlsError::EncryptedKey(path.to_owned()),
        pem::Error::NoItemsFound => TlsError::NoKey(path.to_owned()),
        error => malformed(path, error),
    })
}

/// Whether a key lies there in one of the two forms in which OpenSSL encrypts them.
fn is_encrypted(pem: &[u8]) -> bool {
    let has = |text: &[u8]| pem.windows(text.len()).any(|it| it == text);
    has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED")
}

/// The server's own certificate must not have expired. For those of the CAs after it there is only a
/// line in the log: clients may know another way to a CA that they trust. `now` is since 1970.
fn look_at_validity(
    path: &Path,
    chain: &[CertificateDer<'_>],
    now: Duration,
) -> Result<(), TlsError> {
    for (place, certificate) in chain.iter().enumerate() {
        let certificate =
            Certificate::from_der(certificate).map_err(|error| malformed(path, error))?;
        let validity = certificate.tbs_certificate().validity();
        let (begin, end) = (validity.not_before, validity.not_after);
        let subject = certificate.tbs_certificate().subject();
        if now > end.to_unix_duration() {
            let since = end.to_date_time().to_string();
            if place == 0 {
                let path = path.to_owned();
                return Err(TlsError::Expired { path, since });
            }
            logging::warn!(
                "{}: the certificate of {subject} has expired at {since}",
                path.display()
            );
        }
        if now < begin.to_unix_duration() {
            logging::warn!(
                "{}: the certificate of {subject} is not valid before {}: clients will refuse it, \
                 unless this machine's clock is slow",
                path.display(),
                begin.to_date_time()
            );
        }
    }
    Ok(())
}

/// Why there is no TLS with these files.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// A file is missing, or may not be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file has no certificate in it that is written as PEM.
    NoCertificate(PathBuf),
    /// The file has no private key in it that is written as PEM.
    NoKey(PathBuf),
    /// The private key is encrypted, and nobody is there to enter the passphrase.
    EncryptedKey(PathBuf),
    /// What is in the file is not what it says, or is of a kind that is not supported.
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The private key is not the certificate's.
    WrongKey {
        /// The file with the key.
        key: PathBuf,
        /// The file with the certificate.
        certificate: PathBuf,
    },
    /// The server's certificate has expired.
    Expired {
        /// The file.
        path: PathBuf,
        /// The moment, as `2026-11-23T14:10:56Z`.
        since: String,
    },
    /// No certificate in the file can be used as that of a CA.
    NoCa(PathBuf),
}

impl fmt::Display for TlsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Read { path, source } => {
                write!(formatter, "cannot read {}: {source}", path.display())
            }
            TlsError::NoCertificate(path) => write!(
                formatter,
                "{} has no certificate in PEM (-----BEGIN CERTIFICATE-----)",
                path.display()
            ),
            TlsError::NoKey(path) => write!(
                formatter,
                "{} has no private key in PEM (-----BEGIN PRIVATE KEY-----)",
                path.display()
            ),
            TlsError::EncryptedKey(path) => write!(
                formatter,
                "the private key in {} is encrypted: decrypt it (openssl pkey) and protect the file",
                path.display()
            ),
            TlsError::Malformed { path, why } => {
                write!(formatter, "{} cannot be used: {why}", path.display())
            }
            TlsError::WrongKey { key, certificate } => write!(
                formatter,
                "the private key in {} does not belong to the certificate in {}",
                key.display(),
                certificate.display()
            ),
            TlsError::Expired { path, since } => write!(
                formatter,
                "the certificate in {} has expired at {since}",
                path.display()
            ),
            TlsError::NoCa(path) => write!(
                formatter,
                "no certificate in {} can be used as that of a CA",
                path.display()
            ),
        }
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            TlsError::Read { source, .. } => Some(source),
            _ => None,
        }
    }
}
