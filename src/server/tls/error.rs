//! Why there is no TLS with the files of a program.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

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
    /// The file has something else in it: a certificate in DER, a request for one, the other file's content, nothing at all.
    SomethingElse {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        wanted: &'static str,
        /// What it has, and the command that makes of it what is wanted, if there is one.
        found: String,
    },
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
    /// The private key is that of another certificate in the file than the first one.
    WrongOrder {
        /// The file with the certificates.
        certificate: PathBuf,
        /// The number of the key's certificate in it, counted from 1.
        place: usize,
    },
    /// The server's certificate has expired, and [such are refused](super::TlsFiles::require_valid_dates); or it was to
    /// replace one that has not.
    Expired {
        /// The file.
        path: PathBuf,
        /// The moment, as `2026-11-23T14:10:56Z`.
        since: String,
    },
    /// The server's certificate is not valid yet, and [such are refused](super::TlsFiles::require_valid_dates).
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// The first moment at which it is valid, as `2026-11-23T14:10:56Z`.
        from: String,
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
            TlsError::SomethingElse {
                path,
                wanted,
                found,
            } => {
                let label = wanted.to_uppercase();
                let path = path.display();
                write!(formatter, "{path} has no {wanted} in PEM (-----BEGIN {label}-----): {found}")
            }
            TlsError::EncryptedKey(path) => {
                let path = path.display();
                write!(
                    formatter,
                    "the private key in {path} is encrypted, and nobody is there to enter its passphrase: \
                     `openssl pkey -in {path} -out plain.key` decrypts it. Let only the server's user read that file"
                )
            }
            TlsError::Malformed { path, why } => {
                write!(formatter, "{} cannot be used: {why}", path.display())
            }
            TlsError::WrongKey { key, certificate } => write!(
                formatter,
                "the private key in {} does not belong to the certificate in {}: `openssl pkey -in KEY -pubout` and \
                 `openssl x509 -in CERTIFICATE -noout -pubkey` say the same of two that belong together",
                key.display(),
                certificate.display()
            ),
            TlsError::WrongOrder { certificate, place } => write!(
                formatter,
                "the private key belongs to certificate number {place} in {}: the server's own comes first, and after it \
                 the one that has issued it, and so on",
                certificate.display()
            ),
            TlsError::Expired { path, since } => write!(
                formatter,
                "the certificate in {} has expired at {since}, or this machine's clock is fast",
                path.display()
            ),
            TlsError::NotYetValid { path, from } => write!(
                formatter,
                "the certificate in {} is not valid before {from}, or this machine's clock is slow",
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
