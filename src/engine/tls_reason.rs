//! Why a TLS handshake has failed, in words for those who run servers.

use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use x509_cert::der::DateTime;

/// With what certificates and handshakes may be signed: what ring verifies.
const TAKEN: &str = "has to sign with ECDSA on P-256 or P-384, Ed25519, or RSA with 2048 bits or more, and SHA-256 or more";

/// How webpki, whose errors have no type here, tells of a version of X.509 before 3.
const OLD_VERSION: &str = "UnsupportedCertVersion";

/// What rustls says of a handshake, as far as those who run servers meet it, in their words.
pub(super) fn reason(error: &Error) -> String {
    let words = match error {
        Error::NoCertificatesPresented => {
            "the client shows no certificate, or has none with a key that is taken here"
        }
        Error::InvalidCertificate(error) => return certificate_reason(error),
        Error::AlertReceived(alert) => return alert_reason(*alert),
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => "no common version: the client offers neither TLS 1.2 nor 1.3",
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
            "no common cipher suite"
        }
        Error::DecryptError => "a record cannot be decrypted",
        other => return other.to_string(),
    };
    words.to_owned()
}

fn certificate_reason(error: &CertificateError) -> String {
    let words = match error {
        CertificateError::UnknownIssuer => "is of an unknown CA".to_owned(),
        CertificateError::Expired => "has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            let end = DateTime::from_unix_duration(Duration::from_secs(not_after.as_secs()));
            end.map_or_else(
                |_| "has expired".to_owned(),
                |end| format!("has expired at {end}"),
            )
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet (or this machine's clock is slow)".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not made for clients (extended key usage)".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            format!("is signed in a way that is not taken: its CA {TAKEN}")
        }
        CertificateError::BadSignature => {
            format!("or its key has signed in a way that is wrong or not taken: it {TAKEN}")
        }
        CertificateError::BadEncoding => "cannot be read".to_owned(),
        CertificateError::Other(other) if other.to_string().contains(OLD_VERSION) => {
            "is of X.509 version 1 or 2, and 3 alone is taken: `openssl x509 -req` makes that with -extfile FILE, in which \
             extendedKeyUsage=clientAuth stands"
                .to_owned()
        }
        other => format!("is refused: {other}"),
    };
    format!("the client's certificate {words}")
}

fn alert_reason(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateExpired
        | AlertDescription::UnsupportedCertificate => {
            format!("the client does not accept the server's certificate ({alert:?})")
        }
        alert => format!("the client has broken it off ({alert:?})"),
    }
}
