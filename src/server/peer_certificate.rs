//! Who a client is, by its certificate.

use std::fmt;
use std::sync::Arc;

use x509_cert::der::Decode;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::Certificate;

/// The certificate that a client has shown, and that one of the [CAs](super::TlsFiles::client_ca)
/// has signed. See [`Call::peer_certificate`](super::Call::peer_certificate).
///
/// A clone is the same certificate, and may be kept.
#[derive(Clone)]
pub struct PeerCertificate {
    parts: Arc<Parts>,
}

struct Parts {
    der: Box<[u8]>,
    common_name: Option<String>,
    dns_names: Vec<String>,
    uris: Vec<String>,
    serial_number: Vec<u8>,
}

impl PeerCertificate {
    /// `None` if it is no certificate. What a handshake has accepted is one.
    pub(super) fn parse(der: &[u8]) -> Option<PeerCertificate> {
        let certificate = Certificate::from_der(der).ok()?;
        let content = certificate.tbs_certificate();
        let common_name = content.subject().common_name().ok().flatten();
        let mut parts = Parts {
            der: der.into(),
            common_name: common_name.map(|it| it.value().into_owned()),
            dns_names: Vec::new(),
            uris: Vec::new(),
            serial_number: content.serial_number().as_bytes().to_vec(),
        };
        let names = content.get_extension::<SubjectAltName>().ok()?;
        for name in names.into_iter().flat_map(|(_, it)| it.0) {
            match name {
                GeneralName::DnsName(it) => parts.dns_names.push(it.to_string()),
                GeneralName::UniformResourceIdentifier(it) => parts.uris.push(it.to_string()),
                _ => {}
            }
        }
        let parts = Arc::new(parts);
        Some(PeerCertificate { parts })
    }

    /// The common name of the subject, if it has one.
    pub fn common_name(&self) -> Option<&str> {
        self.parts.common_name.as_deref()
    }

    /// The subject's alternative names that are DNS names.
    pub fn dns_names(&self) -> &[String] {
        &self.parts.dns_names
    }

    /// The subject's alternative names that are URIs, such as SPIFFE's `spiffe://domain/path`.
    pub fn uris(&self) -> &[String] {
        &self.parts.uris
    }

    /// The serial number that its CA has given it, a positive number with the highest byte first.
    pub fn serial_number(&self) -> &[u8] {
        &self.parts.serial_number
    }

    /// The SHA-256 of the whole certificate, as `openssl x509 -fingerprint -sha256` says it.
    pub fn sha256(&self) -> [u8; 32] {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.parts.der);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        bytes
    }

    /// The whole certificate, in DER, for what is not asked for here.
    pub fn der(&self) -> &[u8] {
        &self.parts.der
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PeerCertificate")
            .field("common_name", &self.common_name())
            .field("dns_names", &self.dns_names())
            .field("uris", &self.uris())
            .finish_non_exhaustive()
    }
}
