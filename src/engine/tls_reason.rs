//! Why a TLS handshake has failed, in words for those who run servers.

use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use x509_cert::der::DateTime;

/// What rustls says of a handshake, as far as those who run servers meet it, in their words.
pub(super) fn reason(error: &Error) -> String {
    let words = match error {
        Error::NoCertificatesPresented => "the client shows no certificate",
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
