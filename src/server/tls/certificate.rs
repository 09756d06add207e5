//! What the server's own certificates say of themselves, as far as clients go by it.

use std::path::Path;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::{ExtendedKeyUsage, SubjectAltName};
use x509_cert::{Certificate, Version};

use super::error::TlsError;
use super::pem::malformed;
use crate::logging;
use crate::sockets::encryption::{date, OwnCertificate};

/// id-kp-serverAuth and anyExtendedKeyUsage. RFC 5280, 4.2.1.12.
const FOR_SERVERS: [ObjectIdentifier; 2] = [
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1"),
    ObjectIdentifier::new_unwrap("2.5.29.37.0"),
];

/// The server's own certificate, and those of the CAs after it.
pub(super) struct Chain<'a> {
    path: &'a Path,
    certificates: Vec<Certificate>,
}

impl<'a> Chain<'a> {
    /// Of what was read in this file.
    pub(super) fn parse(
        path: &'a Path,
        chain: &[CertificateDer<'_>],
    ) -> Result<Chain<'a>, TlsError> {
        let parse = |(place, der): (usize, &CertificateDer<'_>)| {
            let certificate = Certificate::from_der(der);
            certificate.map_err(|error| {
                let place = place + 1;
                malformed(
                    path,
                    format!("what it has as number {place} is no certificate: {error}"),
                )
            })
        };
        let certificates: Vec<_> = chain
            .iter()
            .enumerate()
            .map(parse)
            .collect::<Result<_, _>>()?;
        Ok(Chain { path, certificates })
    }

    /// What is known of the server's own.
    pub(super) fn own(&self) -> Result<OwnCertificate, TlsError> {
        let path = self.path;
        let Some(own) = self.certificates.first() else {
            return Err(TlsError::NoCertificate(path.to_owned()));
        };
        let content = own.tbs_certificate();
        if content.version() != Version::V3 {
            return Err(malformed(path, of_old_version(content.version())));
        }
        let validity = content.validity();
        Ok(OwnCertificate {
            path: path.to_owned(),
            subject: content.subject().to_string(),
            begin: validity.not_before.to_unix_duration(),
            end: validity.not_after.to_unix_duration(),
        })
    }

    /// The number of the certificate that this key belongs to, from 1 on.
    pub(super) fn place_of(&self, key: &SubjectPublicKeyInfoDer<'_>) -> Option<usize> {
        let place = self.certificates.iter().position(|it| {
            let own = it.tbs_certificate().subject_public_key_info().to_der();
            own.is_ok_and(|own| own == key.as_ref())
        });
        place.map(|it| it + 1)
    }

    /// Tells the log of what some clients take and others do not. `now` is since 1970.
    pub(super) fn warn(&self, now: Duration) {
        let path = self.path.display();
        for (certificate, next) in self
            .certificates
            .iter()
            .zip(self.certificates.iter().skip(1))
        {
            let (content, next) = (certificate.tbs_certificate(), next.tbs_certificate());
            if content.issuer() != next.subject() {
                logging::warn!(
                    "{path}: the certificate of {} is followed by that of {}, which has not issued it: clients may not find \
                     the way to their CA. Each is to be followed by the one that has issued it",
                    content.subject(),
                    next.subject()
                );
            }
        }
        for certificate in self.certificates.iter().skip(1) {
            let content = certificate.tbs_certificate();
            let (subject, validity) = (content.subject(), content.validity());
            let (begin, end) = (
                validity.not_before.to_unix_duration(),
                validity.not_after.to_unix_duration(),
            );
            if now > end {
                // Clients may know another way to a CA that they trust.
                let end = date(end);
                logging::warn!("{path}: the certificate of {subject} has expired at {end}");
            }
            if now < begin {
                let begin = date(begin);
                logging::warn!("{path}: the certificate of {subject} is not valid before {begin}");
            }
        }
        let Some(own) = self.certificates.first() else {
            return;
        };
        let content = own.tbs_certificate();
        let subject = content.subject();
        if !matches!(content.get_extension::<SubjectAltName>(), Ok(Some((_, names))) if !names.0.is_empty())
        {
            logging::warn!(
                "{path}: the certificate of {subject} names no host (subjectAltName): clients will refuse it. {}",
                command("subjectAltName")
            );
        }
        let usage = content.get_extension::<ExtendedKeyUsage>();
        if let Ok(Some((_, usage))) = usage {
            if !usage.0.iter().any(|it| FOR_SERVERS.contains(it)) {
                logging::warn!(
                    "{path}: the certificate of {subject} is not made for servers (extendedKeyUsage): clients will refuse it"
                );
            }
        }
    }
}

fn of_old_version(version: Version) -> String {
    let number = match version {
        Version::V1 => 1,
        Version::V2 => 2,
        Version::V3 => 3,
    };
    format!(
        "it has a certificate of X.509 version {number}, which names no hosts, and clients take version 3 alone. {}",
        command("of version 3")
    )
}

/// How one is made that clients take.
fn command(what: &str) -> String {
    format!(
        "`openssl req -x509 -key server.key -subj /CN=localhost -addext subjectAltName=DNS:localhost -addext \
         basicConstraints=critical,CA:FALSE -days 365 -out chain.pem` makes one with {what}; with -CA and -CAkey it is signed \
         by a CA"
    )
}
