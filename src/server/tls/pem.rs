//! The files of a program, read as PEM, and what lies there instead: certificates and keys come in many forms, and few
//! of them say so.

use std::borrow::Cow;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::der::Decode;
use x509_cert::Certificate;

use super::error::TlsError;
use super::key::MAKE_KEY;

/// How UTF-8 is marked by some editors, and UTF-16 by all.
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// How each section of PEM begins (RFC 7468, 2).
const BEGIN: &[u8] = b"-----BEGIN ";

/// All certificates in the file; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let text = without_mark(&text);
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|error| malformed(path, words(error)))?;
    // One that is passed over because of a space before it might be the server's own.
    let begun = sections(text).filter(|it| it == "CERTIFICATE").count();
    if begun > found.len() {
        let why = "a line with -----BEGIN CERTIFICATE----- begins with something else";
        return Err(malformed(path, why));
    }
    match found.is_empty() {
        false => Ok(found),
        true => Err(match instead_of_certificate(path, text) {
            Some(found) => TlsError::SomethingElse {
                path: path.to_owned(),
                wanted: "certificate",
                found,
            },
            None => TlsError::NoCertificate(path.to_owned()),
        }),
    }
}

/// The first private key in the file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    let text = without_mark(&text);
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        _ if is_encrypted(text) => TlsError::EncryptedKey(path.to_owned()),
        pem::Error::NoItemsFound => match instead_of_key(path, text) {
            Some(found) => TlsError::SomethingElse {
                path: path.to_owned(),
                wanted: "private key",
                found,
            },
            None => TlsError::NoKey(path.to_owned()),
        },
        error => malformed(path, words(error)),
    })
}

pub(super) fn malformed(path: &Path, why: impl Into<String>) -> TlsError {
    TlsError::Malformed {
        path: path.to_owned(),
        why: why.into(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Without it, since the first section would be passed over as text before it.
fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(UTF8_MARK).unwrap_or(text)
}

/// The labels of the sections, in order, wherever in a line they begin. Lines that are comments do not count.
fn sections(text: &[u8]) -> impl Iterator<Item = Cow<'_, str>> {
    text.split(|it| matches!(it, b'\n' | b'\r'))
        .filter_map(|line| {
            let line = line.trim_ascii().strip_prefix(BEGIN)?;
            let end = line.windows(5).position(|it| it == b"-----")?;
            Some(String::from_utf8_lossy(&line[..end]))
        })
}

/// Whether a key lies there in one of the two forms in which OpenSSL encrypts them.
fn is_encrypted(text: &[u8]) -> bool {
    let has = |words: &[u8]| text.windows(words.len()).any(|it| it == words);
    has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED")
}

/// What keeps a section from being read.
fn words(error: pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "it ends within a section: the line that begins with -----END is missing".to_owned()
        }
        pem::Error::IllegalSectionStart { .. } => {
            "a line that begins with -----BEGIN does not end with -----".to_owned()
        }
        pem::Error::Base64Decode(_) => {
            "what stands between the lines with -----BEGIN and -----END is no base64".to_owned()
        }
        other => other.to_string(),
    }
}

fn instead_of_certificate(path: &Path, text: &[u8]) -> Option<String> {
    let path = path.display();
    let label = match section_or_words(&path, text)? {
        Ok(label) => label,
        Err(words) => return Some(words),
    };
    Some(match &*label {
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => format!(
            "it has a request (CSR), from which a CA makes one: `openssl x509 -req -in {path} -CA ca.pem -CAkey ca.key \
             -CAcreateserial -days 365 -copy_extensions copy -out chain.pem`"
        ),
        "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => format!(
            "it has a {label}, which is OpenSSL's own form: `openssl x509 -in {path} -out chain.pem` makes a certificate of it"
        ),
        "PKCS7" | "PKCS #7 SIGNED DATA" | "CMS" => format!(
            "it has certificates in PKCS #7: `openssl pkcs7 -print_certs -in {path} -out chain.pem` takes them out"
        ),
        key if key.ends_with("PRIVATE KEY") => {
            "it has a private key: is it the file for the key?".to_owned()
        }
        key if key.ends_with("PUBLIC KEY") => {
            "it has a public key alone, for which no CA stands".to_owned()
        }
        other => format!("it has a section with the label {other}"),
    })
}

fn instead_of_key(path: &Path, text: &[u8]) -> Option<String> {
    let label = match section_or_words(&path.display(), text)? {
        Ok(label) => label,
        Err(words) => return Some(words),
    };
    Some(match &*label {
        "CERTIFICATE" => "it has a certificate: is it the file for the certificates?".to_owned(),
        "DSA PRIVATE KEY" => format!("it has a key for DSA, which TLS has given up: {MAKE_KEY}"),
        "OPENSSH PRIVATE KEY" => format!("it has a key for SSH: {MAKE_KEY}"),
        "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
            format!("a line with -----BEGIN {label}----- begins with something else")
        }
        key if key.ends_with("PUBLIC KEY") => "it has the public half of a key alone".to_owned(),
        other => format!("it has a section with the label {other}"),
    })
}

/// The label of the first section, or what can be said of a file that has none.
fn section_or_words<'a>(
    path: &dyn std::fmt::Display,
    text: &'a [u8],
) -> Option<Result<Cow<'a, str>, String>> {
    if let Some(label) = sections(text).next() {
        return Some(Ok(label));
    }
    let words = match text {
        _ if text.trim_ascii().is_empty() => "it is empty".to_owned(),
        _ if UTF16_MARKS.iter().any(|it| text.starts_with(it)) => {
            format!("it is text in UTF-16: `iconv -f UTF-16 -t UTF-8 {path} > utf8.pem` rewrites it")
        }
        _ if Certificate::from_der(text).is_ok() => format!(
            "it has a certificate in DER: `openssl x509 -inform DER -in {path} -out chain.pem` writes it as PEM"
        ),
        // A sequence that begins with the number 3, its version. RFC 7292, 4.
        [0x30, 0x82, _, _, 2, 1, 3, ..] => format!(
            "it is an archive (PKCS #12): `openssl pkcs12 -in {path} -nodes -out both.pem` writes certificate and key \
             as PEM, for which both.pem is the file"
        ),
        _ if PrivateKeyDer::try_from(text).is_ok() => {
            format!("it has a key in DER: `openssl pkey -inform DER -in {path} -out key.pem` writes it as PEM")
        }
        _ => return None,
    };
    Some(Err(words))
}
