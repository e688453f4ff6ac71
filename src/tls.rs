//! TLS: its implementation, whom clients trust, and certificates for the listeners of the API, from PEM files to what
//! rustls takes.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::Url;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Bytes of a certificate or key file at most.
const LARGEST: u64 = 1 << 20;

/// What each program does first. Doing it again changes nothing.
pub fn install_provider() {
    // An error means that it is there already.
    let _there = rustls::crypto::ring::default_provider().install_default();
}

/// For a client of `url`: what this machine trusts where that is `https`, else nobody, which costs no reading of some
/// hundred files and works on a machine without any. Blocks.
///
/// # Errors
///
/// The machine has no certificates, and the URL needs them; with a remedy.
pub fn client(url: &Url) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if url.scheme() == "https" {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            let remedy = "install the package ca-certificates, or name a file of them in SSL_CERT_FILE";
            return Err(format!("this machine has no list of trusted certificates: {remedy}"));
        }
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those of its issuers after it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Which of the two files is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFile {
    /// The certificate.
    Certificate,
    /// The key.
    Key,
}

/// Why they cannot be used. Holds nothing of what is in the files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct TlsFault {
    /// Where.
    pub file: TlsFile,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// Reads and checks both files. Blocks.
pub fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsFault> {
    let chain = certificates(&files.certificate)?;
    let key = private_key(&files.key)?;
    let provider = ring::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => fault(
            TlsFile::Key,
            format!(
                "{} is not the key of the certificate in {}",
                files.key.display(),
                files.certificate.display()
            ),
            "name the key that the certificate was made for",
        ),
        error => fault(
            TlsFile::Certificate,
            format!("{} and its key cannot be used: {error}", files.certificate.display()),
            "use an RSA, ECDSA (P-256, P-384) or Ed25519 key with an X.509 certificate",
        ),
    })?;
    let made = ServerConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions();
    let made = made.map_err(|error| {
        fault(
            TlsFile::Certificate,
            format!("TLS cannot be set up: {error}"),
            "this is a fault of the program",
        )
    })?;
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let mut config = made.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let bad = |message: String| {
        let help = "give a PEM file with -----BEGIN CERTIFICATE-----, the certificate of this server first";
        fault(TlsFile::Certificate, message, help)
    };
    let pem = read(path, TlsFile::Certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(bad(format!("{} holds no certificate", path.display()))),
        Err(_) => Err(bad(format!("{} is not a PEM file", path.display()))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
    let pem = read(path, TlsFile::Key)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        let help = "give a PEM file with -----BEGIN PRIVATE KEY-----, not encrypted";
        fault(TlsFile::Key, format!("{} holds no private key", path.display()), help)
    })
}

fn read(path: &Path, which: TlsFile) -> Result<Vec<u8>, TlsFault> {
    let unreadable = |error: std::io::Error| {
        let help = "give the path of a PEM file that this user may read";
        fault(which, format!("{} cannot be read: {error}", path.display()), help)
    };
    // Looked at before it is opened: opening a pipe would block.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(unreadable(std::io::Error::other("it is not a file of at most 1 MiB")));
    }
    if which == TlsFile::Key && metadata.permissions().mode() & 0o007 != 0 {
        let help =
            format!("close it with `chmod o= {}`, and renew the key if others had access", path.display());
        return Err(fault(which, format!("the private key {} is open to everybody", path.display()), help));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(LARGEST).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn fault(file: TlsFile, message: String, help: impl Into<String>) -> TlsFault {
    TlsFault { file, message, help: help.into() }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};

    /// Makes a certificate for 127.0.0.1 and its key; `None` without the openssl program.
    pub(crate) fn certificate(folder: &Path, name: &str) -> Option<TlsFiles> {
        let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        let made = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-days", "2", "-subj", &format!("/CN={name}"), "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output();
        match made {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
            Err(_) => {
                eprintln!("skipped: needs the openssl program");
                return None;
            }
        }
        set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        Some(TlsFiles { certificate, key })
    }

    #[test]
    fn each_fault_names_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (Some(one), Some(two)) = (certificate(folder.path(), "one"), certificate(folder.path(), "two"))
        else {
            return;
        };
        load(&one).unwrap();
        let with = |certificate: &Path, key: &Path| {
            let fault = load(&TlsFiles { certificate: certificate.into(), key: key.into() }).unwrap_err();
            assert!(!fault.help.is_empty());
            (fault.file, fault.message)
        };
        let (file, message) = with(&one.certificate, &two.key);
        assert!(file == TlsFile::Key && message.contains("is not the key of"), "{message}");
        let (file, message) = with(&folder.path().join("none"), &one.key);
        assert!(file == TlsFile::Certificate && message.contains("No such file"), "{message}");
        let (file, message) = with(&one.key, &one.key);
        assert!(file == TlsFile::Certificate && message.contains("holds no certificate"), "{message}");
        let (file, message) = with(&one.certificate, &one.certificate);
        assert!(file == TlsFile::Key, "{message}");
        let (file, message) = with(folder.path(), &one.key);
        assert!(file == TlsFile::Certificate && message.contains("not a file"), "{message}");
        set_permissions(&one.key, Permissions::from_mode(0o644)).unwrap();
        let (file, message) = with(&one.certificate, &one.key);
        assert!(file == TlsFile::Key && message.contains("open to everybody"), "{message}");
        set_permissions(&one.key, Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&one.certificate, "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----")
            .unwrap();
        assert_eq!(with(&one.certificate, &one.key).0, TlsFile::Certificate);
    }
}
