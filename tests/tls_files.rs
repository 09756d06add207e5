//! Certificates and keys that cannot be used, as OpenSSL makes them: each error says what it is, and the command that makes
//! a right one. What the commands make is taken. And those that clients show.
#![cfg(feature = "tls")]

mod common;
mod tls_support;

use std::process::{Command, Stdio};
use std::sync::Arc;

use common::{echo, eventually};
use tls_support::*;
use touchdown::{Tls, TlsError};

/// A folder with server.pem and server.key, in which OpenSSL works; `None` if it is not installed.
fn workshop() -> Option<Folder> {
    let folder = Folder::new();
    let is_there = Command::new("openssl")
        .arg("version")
        .stdout(Stdio::null())
        .status();
    match is_there {
        Ok(_) => Some(folder),
        Err(error) => {
            println!("skipped, since there is no openssl: {error}");
            None
        }
    }
}

impl Folder {
    fn run(&self, script: &str) {
        let output = Command::new("sh")
            .args(["-e", "-c", script])
            .current_dir(&self.path)
            .output();
        let output = output.expect("a shell is there");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {said}");
    }

    fn load(&self, chain: &str, key: &str) -> Result<Tls, TlsError> {
        Tls::from_pem_files(self.file(chain), self.file(key)).load()
    }

    /// The error with these files, whose words are without debug output.
    fn refusal(&self, chain: &str, key: &str) -> String {
        let error = self
            .load(chain, key)
            .map(drop)
            .expect_err(chain)
            .to_string();
        for debug in ["Error", "Unsupported", "Invalid", "{", "["] {
            assert!(!error.contains(debug), "{error}");
        }
        error
    }
}

/// The command in an error, which stands between backticks.
fn command(error: &str) -> &str {
    error.split('`').nth(1).expect(error)
}

const SELF_SIGNED: &str =
    "-x509 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost -days 30";

#[test]
fn keys_that_tls_does_not_take_are_told_by_their_kind() {
    let Some(folder) = workshop() else { return };
    let kinds = [
        (
            "EC -pkeyopt ec_paramgen_curve:P-521",
            "a key for the curve P-521",
        ),
        (
            "EC -pkeyopt ec_paramgen_curve:secp256k1",
            "the curve secp256k1",
        ),
        (
            "EC -pkeyopt ec_paramgen_curve:brainpoolP256r1",
            "brainpoolP256r1",
        ),
        (
            "EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit",
            "a curve that is written out and not named",
        ),
        (
            "RSA -pkeyopt rsa_keygen_bits:512",
            "a key for RSA with 512 bits",
        ),
        (
            "RSA -pkeyopt rsa_keygen_bits:1024",
            "a key for RSA with 1024 bits",
        ),
        (
            "RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3",
            "another public exponent than 65537 (2048 bits)",
        ),
        ("RSA-PSS -pkeyopt rsa_keygen_bits:2048", "RSA for PSS alone"),
        ("ED448", "a key for Ed448"),
        ("X25519", "a key for X25519"),
    ];
    for (kind, words) in kinds {
        folder.run(&format!("openssl genpkey -algorithm {kind} -out wrong.key"));
        let error = folder.refusal("server.pem", "wrong.key");
        assert!(error.contains(words), "{kind}: {error}");
        assert!(error.contains("wrong.key cannot be used"), "{error}");
    }
    // In the older forms, too.
    folder.run("openssl ecparam -name secp521r1 -genkey -out wrong.key");
    let error = folder.refusal("server.pem", "wrong.key");
    assert!(error.contains("a key for the curve P-521"), "{error}");
    folder.run("openssl genrsa -traditional -out wrong.key 1024");
    let error = folder.refusal("server.pem", "wrong.key");
    assert!(error.contains("a key for RSA with 1024 bits"), "{error}");
    folder.run(command(&error));
    folder.run(&format!(
        "openssl req {SELF_SIGNED} -key new.key -out new.pem"
    ));
    folder.load("new.pem", "new.key").unwrap();
}

#[test]
fn a_certificate_of_an_old_version_is_told_how_a_new_one_is_made() {
    let Some(folder) = workshop() else { return };
    folder.run(
        "openssl req -new -key server.key -subj /CN=localhost -out it.csr
         openssl x509 -req -in it.csr -signkey server.key -days 30 -out old.pem",
    );
    let error = folder.refusal("old.pem", "server.key");
    assert!(
        error.contains("a certificate of X.509 version 1"),
        "{error}"
    );
    folder.run(command(&error));
    let tls = folder.load("chain.pem", "server.key").unwrap();
    // A client that goes by the standard takes it.
    let server = start(echo(), tls);
    let ca = folder.file("chain.pem");
    assert_eq!(client(&server, &Wish::new(&ca)).say("it").unwrap(), "it");
}

#[test]
fn other_forms_are_named_and_what_their_commands_make_is_taken() {
    let Some(folder) = workshop() else { return };
    folder.run(
        "openssl x509 -in server.pem -outform DER -out chain.der
         openssl pkey -in server.key -outform DER -out key.der
         openssl pkcs12 -export -in server.pem -inkey server.key -passout pass: -out both.p12
         openssl crl2pkcs7 -nocrl -certfile server.pem -out chain.p7b
         openssl x509 -in server.pem -trustout -addtrust serverAuth -out trusted.pem
         openssl pkey -in server.key -aes-256-cbc -passout pass:secret -out encrypted.key
         (printf '\\377\\376'; iconv -f UTF-8 -t UTF-16LE server.pem) > utf16.pem",
    );
    let error = folder.refusal("chain.der", "server.key");
    assert!(error.contains("a certificate in DER"), "{error}");
    folder.run(command(&error));
    folder.load("chain.pem", "server.key").unwrap();

    let error = folder.refusal("server.pem", "key.der");
    assert!(error.contains("a key in DER"), "{error}");
    folder.run(command(&error));
    folder.load("server.pem", "key.pem").unwrap();

    for (chain, key) in [("both.p12", "server.key"), ("server.pem", "both.p12")] {
        let error = folder.refusal(chain, key);
        assert!(error.contains("an archive (PKCS #12)"), "{error}");
        folder.run(&format!("{} -passin pass:", command(&error)));
        folder.load("both.pem", "both.pem").unwrap();
    }

    let cases = [
        ("chain.p7b", "PKCS #7", "chain.pem"),
        ("trusted.pem", "a TRUSTED CERTIFICATE", "chain.pem"),
        ("utf16.pem", "UTF-16", "utf8.pem"),
    ];
    for (wrong, words, made) in cases {
        let error = folder.refusal(wrong, "server.key");
        assert!(error.contains(words), "{error}");
        folder.run(command(&error));
        folder.load(made, "server.key").unwrap();
    }

    let error = folder.refusal("server.pem", "encrypted.key");
    assert!(error.contains("encrypted.key is encrypted"), "{error}");
    folder.run(&format!("{} -passin pass:secret", command(&error)));
    folder.load("server.pem", "plain.key").unwrap();
}

#[test]
fn what_is_meant_for_somebody_else_is_told_what_it_is() {
    let Some(folder) = workshop() else { return };
    folder.run(
        "openssl req -new -key server.key -subj /CN=localhost -addext subjectAltName=DNS:localhost -out it.csr
         openssl pkey -in server.key -pubout -out public.pem
         openssl ecparam -name prime256v1 -out parameters.pem
         openssl dsaparam -genkey 1024 2>/dev/null | openssl dsa -out dsa.key
         openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=CA -days 30 -keyout ca.key -out ca.pem",
    );
    folder.write(
        "ssh.key",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    );
    folder.write("blank", " \n\n");
    let cases = [
        (
            "it.csr",
            "server.key",
            "a request (CSR), from which a CA makes one",
        ),
        (
            "server.key",
            "server.pem",
            "a private key: is it the file for the key",
        ),
        ("public.pem", "server.key", "a public key alone"),
        ("blank", "server.key", "it is empty"),
        (
            "server.pem",
            "server.pem",
            "a certificate: is it the file for the certificates",
        ),
        ("server.pem", "public.pem", "the public half of a key alone"),
        (
            "server.pem",
            "parameters.pem",
            "a section with the label EC PARAMETERS",
        ),
        ("server.pem", "dsa.key", "DSA"),
        ("server.pem", "ssh.key", "a key for SSH"),
        ("server.pem", "blank", "it is empty"),
    ];
    for (chain, key, words) in cases {
        let error = folder.refusal(chain, key);
        assert!(error.contains(words), "{error}");
    }
    let error = folder.refusal("it.csr", "server.key");
    folder.run(command(&error));
    folder.load("chain.pem", "server.key").unwrap();
}

/// Editors and other systems leave them behind.
#[test]
fn marks_and_line_ends_of_other_systems_do_not_matter() {
    let folder = Folder::new();
    let read = |name: &str| std::fs::read_to_string(folder.file(name)).unwrap();
    let (chain, key) = (read("server.pem"), read("server.key"));
    let ca = read("ca.pem");
    for (name, change) in [
        (
            "crlf",
            (|it: &str| it.replace('\n', "\r\n")) as fn(&str) -> String,
        ),
        ("marked", |it| format!("\u{feff}{it}")),
        ("marked-crlf", |it| {
            format!("\u{feff}{}", it.replace('\n', "\r\n"))
        }),
        ("old-mac", |it| it.replace('\n', "\r")),
        ("words", |it| {
            format!("Bag Attributes\n    localKeyID: 01\n{it}the end")
        }),
    ] {
        folder.write_pair(name, (change(&format!("{chain}{ca}")), change(&key)));
        let (chain, key) = (format!("{name}.pem"), format!("{name}.key"));
        folder.load(&chain, &key).expect(name);
    }
    // What is passed over might be the server's own.
    let indented = format!("{}{ca}", chain.replace("-----BEGIN", "  -----BEGIN"));
    folder.write("indented.pem", &indented);
    let error = folder.refusal("indented.pem", "server.key");
    assert!(error.contains("begins with something else"), "{error}");
    let (begin, _) = chain.split_at(chain.len() / 2);
    folder.write("half.pem", begin);
    let error = folder.refusal("half.pem", "server.key");
    assert!(error.contains("-----END is missing"), "{error}");
}

#[test]
fn the_order_of_a_chain_is_told_when_the_key_is_of_another_place() {
    let folder = Folder::new();
    let read = |name: &str| std::fs::read_to_string(folder.file(name)).unwrap();
    folder.write(
        "turned.pem",
        &format!("{}{}", read("ca.pem"), read("server.pem")),
    );
    let error = folder.load("turned.pem", "server.key").unwrap_err();
    assert!(
        matches!(error, TlsError::WrongOrder { place: 2, .. }),
        "{error}"
    );
    let error = folder.load("server.pem", "client.key").unwrap_err();
    assert!(matches!(error, TlsError::WrongKey { .. }), "{error}");
    folder.write(
        "right.pem",
        &format!("{}{}", read("server.pem"), read("ca.pem")),
    );
    folder.load("right.pem", "server.key").unwrap();
}

#[test]
fn what_some_clients_do_not_take_is_a_line_in_the_log() {
    listen_to_log();
    let folder = Folder::new();
    let ca = Ca::new("CA of warnings");
    let mut nameless = server_params();
    nameless.subject_alt_names.clear();
    folder.write_pair("nameless", ca.sign(nameless));
    folder.write_pair("client", ca.sign(client_params("not-a-server")));
    let (chain, key) = ca.sign(server_params());
    folder.write_pair(
        "strange",
        (format!("{chain}{}", Ca::new("Other CA").pem()), key),
    );
    folder.write_pair("right", {
        let (chain, key) = ca.sign(server_params());
        (format!("{chain}{}", ca.pem()), key)
    });
    let lines = [
        ("right", "right.pem: the certificate of"),
        ("nameless", "names no host (subjectAltName)"),
        ("client", "is not made for servers"),
        ("strange", "which has not issued it"),
    ];
    for (name, words) in lines {
        folder
            .load(&format!("{name}.pem"), &format!("{name}.key"))
            .unwrap();
        let expected = usize::from(name != "right");
        assert_eq!(logged(words), expected, "{name}");
    }
}

/// Clients that are not ours, with certificates that only others make.
#[test]
fn what_is_wrong_with_a_clients_certificate_is_told_in_words() {
    let Some(folder) = workshop() else { return };
    folder.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=CA -days 30 -keyout ca.key -out ca.pem
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-521 -nodes -subj /CN=CA-521 -days 30 \
             -keyout ca-521.key -out ca-521.pem
         cat ca.pem ca-521.pem > cas.pem
         echo extendedKeyUsage=clientAuth > for-clients
         make() {
             openssl req -newkey $2 -nodes -subj /CN=$1 -keyout $1.key -out $1.csr
             openssl x509 -req -in $1.csr -CA $3.pem -CAkey $3.key -CAcreateserial -days 30 $4 $5 $6 -out $1.pem
         }
         make old rsa:2048 ca
         make of-521 rsa:2048 ca-521 -extfile for-clients
         make sha1 rsa:2048 ca -sha1 -extfile for-clients
         make short rsa:1024 ca -extfile for-clients",
    );
    let failures = Arc::<Failures>::default();
    let files = folder.files().client_ca(folder.file("cas.pem"));
    let server = builder(echo(), files.load().unwrap())
        .observer(Arc::clone(&failures))
        .start()
        .unwrap();
    let address = server.address().to_string();
    for (name, words) in [
        ("old", "is of X.509 version 1 or 2, and 3 alone is taken"),
        (
            "of-521",
            "is signed in a way that is not taken: its CA has to sign",
        ),
        (
            "sha1",
            "is signed in a way that is not taken: its CA has to sign",
        ),
        ("short", "has signed in a way that is wrong or not taken"),
    ] {
        let before = failures.with(words);
        // It fails, as it has to.
        folder.run(&format!(
            "timeout 60 openssl s_client -connect {address} -alpn h2 -cipher DEFAULT@SECLEVEL=0 \
             -cert {name}.pem -key {name}.key < /dev/null || true"
        ));
        eventually(name, || failures.with(words) == before + 1);
    }
    assert_eq!(failures.with("Other("), 0);
    assert_eq!(failures.with("{"), 0);
}
