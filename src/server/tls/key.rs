//! Which kind of private key it is that cannot be used: the library that is to sign with it only says that it cannot.

use rustls::pki_types::PrivateKeyDer;
use x509_cert::der::asn1::{ContextSpecific, ObjectIdentifier, OctetStringRef, UintRef};
use x509_cert::der::{Decode, Reader, SliceReader};
use x509_cert::spki::AlgorithmIdentifierRef;

/// The command for a key that can be used.
pub(super) const MAKE_KEY: &str =
    "`openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out new.key` makes \
                                   one that can be used, and needs a certificate of its own";

/// How many bits an RSA key may have: what ring signs with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Names of algorithms and curves: RFC 8017, RFC 5480, RFC 8410, RFC 5639, SEC 2.
#[rustfmt::skip]
const NAMES: [(&str, &str); 20] = [
    ("1.2.840.113549.1.1.1", "RSA"),
    ("1.2.840.113549.1.1.10", "RSA for PSS alone"),
    ("1.2.840.113549.1.3.1", "DH"),
    ("1.2.840.10040.4.1", "DSA"),
    ("1.2.840.10045.2.1", "ECDSA"),
    ("1.2.840.10045.3.1.1", "the curve P-192"),
    ("1.2.840.10045.3.1.7", "the curve P-256"),
    ("1.3.132.0.10", "the curve secp256k1"),
    ("1.3.132.0.33", "the curve P-224"),
    ("1.3.132.0.34", "the curve P-384"),
    ("1.3.132.0.35", "the curve P-521"),
    ("1.3.36.3.3.2.8.1.1.7", "the curve brainpoolP256r1"),
    ("1.3.36.3.3.2.8.1.1.11", "the curve brainpoolP384r1"),
    ("1.3.36.3.3.2.8.1.1.13", "the curve brainpoolP512r1"),
    ("1.3.101.110", "X25519"),
    ("1.3.101.111", "X448"),
    ("1.3.101.112", "Ed25519"),
    ("1.3.101.113", "Ed448"),
    ("1.2.156.10197.1.301", "the curve SM2"),
    ("2.16.840.1.101.3.4.3.18", "ML-DSA"),
];

/// What to say of a key that was refused.
pub(super) fn words(key: &PrivateKeyDer<'_>) -> String {
    let taken = format!(
        "taken are those for RSA with {} to {} bits, on the curves P-256 and P-384, and for Ed25519. {MAKE_KEY}",
        RSA_BITS.start(),
        RSA_BITS.end()
    );
    match kind(key) {
        Some(kind) => format!("it has a key for {kind}: {taken}"),
        None => format!("its private key is damaged, or of an unknown kind: {taken}"),
    }
}

fn kind(key: &PrivateKeyDer<'_>) -> Option<String> {
    match key {
        PrivateKeyDer::Pkcs1(key) => rsa(key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => Some(
            curve_of_sec1(key.secret_sec1_der())?
                .unwrap_or_else(|| "a curve that is not named".to_owned()),
        ),
        PrivateKeyDer::Pkcs8(key) => pkcs8(key.secret_pkcs8_der()),
        _ => None,
    }
}

/// PrivateKeyInfo: version, algorithm, the key in a form of the algorithm's. RFC 5208, 5.
fn pkcs8(der: &[u8]) -> Option<String> {
    let (algorithm, key) = fields(der, |reader| {
        UintRef::decode(reader)?;
        let algorithm = AlgorithmIdentifierRef::decode(reader)?;
        let key = <&OctetStringRef>::decode(reader)?;
        Ok((algorithm, key.as_bytes()))
    })?;
    match name(&algorithm.oid).as_str() {
        "RSA" => rsa(key),
        "ECDSA" => {
            let curve = algorithm.parameters.map(|it| it.decode_as());
            Some(match curve {
                Some(Ok(curve)) => name(&curve),
                _ => "a curve that is written out and not named".to_owned(),
            })
        }
        other => Some(other.to_owned()),
    }
}

/// RSAPrivateKey: version, modulus, public exponent, and more. RFC 8017, A.1.2.
fn rsa(der: &[u8]) -> Option<String> {
    let (modulus, exponent) = fields(der, |reader| {
        UintRef::decode(reader)?;
        Ok((UintRef::decode(reader)?, UintRef::decode(reader)?))
    })?;
    let bits = bits(modulus.as_bytes());
    Some(match exponent.as_bytes() {
        [1, 0, 1] => format!("RSA with {bits} bits"),
        _ if RSA_BITS.contains(&bits) => {
            format!("RSA with another public exponent than 65537 ({bits} bits)")
        }
        _ => format!("RSA with {bits} bits"),
    })
}

fn bits(number: &[u8]) -> usize {
    let zeros = number.first().map_or(0, |it| it.leading_zeros() as usize);
    number.len() * 8 - zeros
}

/// ECPrivateKey: version, key, the curve, and more. RFC 5915, 3. Within, `None` if the curve is not named.
fn curve_of_sec1(der: &[u8]) -> Option<Option<String>> {
    fields(der, |reader| {
        UintRef::decode(reader)?;
        <&OctetStringRef>::decode(reader)?;
        let curve = ContextSpecific::<ObjectIdentifier>::decode(reader);
        Ok(curve.ok().map(|it| name(&it.value)))
    })
}

fn name(oid: &ObjectIdentifier) -> String {
    let oid = oid.to_string();
    let known = NAMES.iter().find(|it| it.0 == oid);
    known.map_or_else(|| format!("the algorithm {oid}"), |it| it.1.to_owned())
}

/// The first fields of a sequence.
fn fields<'a, T>(
    der: &'a [u8],
    read: impl FnOnce(&mut SliceReader<'a>) -> x509_cert::der::Result<T>,
) -> Option<T> {
    let mut reader = SliceReader::new(der).ok()?;
    let read = reader.sequence(|reader| {
        let fields = read(reader)?;
        reader.read_slice(reader.remaining_len())?;
        Ok::<_, x509_cert::der::Error>(fields)
    });
    read.ok()
}
