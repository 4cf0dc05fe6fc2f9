//! The certificate authority of one stack and the wildcard certificate it signs, kept across starts.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::private;

/// Where the certificates of a stack lie.
pub struct Certificates {
    /// The authority's certificate in PEM, to be trusted by clients.
    pub authority: PathBuf,
    /// Folder with `_.{domain}.crt` and `_.{domain}.key`.
    pub folder: PathBuf,
}

impl Certificates {
    /// Finds the certificates of a folder, or makes them at its first start.
    ///
    /// # Errors
    /// When they cannot be made or written.
    pub fn of_folder(folder: &Path, domain: &str) -> anyhow::Result<Self> {
        let made = Self { authority: folder.join("ca.pem"), folder: folder.join("certificates") };
        let certificate = made.folder.join(format!("_.{domain}.crt"));
        let key = made.folder.join(format!("_.{domain}.key"));
        if made.authority.exists() && certificate.exists() && key.exists() {
            return Ok(made);
        }
        private::make_folder(&made.folder)?;
        let authority = authority().context("making the certificate authority")?;
        let (leaf, leaf_key) = wildcard(domain, &authority).context("making the wildcard certificate")?;
        private::write(&key, leaf_key.serialize_pem().as_bytes())?;
        private::write(&certificate, leaf.as_bytes())?;
        private::write(&made.authority, authority.pem().as_bytes())?;
        Ok(made)
    }
}

/// An authority whose key is forgotten once it has signed: nobody can use it for another name.
fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "Chutes local stack");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.not_before = date_time_ymd(2025, 1, 1);
    parameters.not_after = date_time_ymd(2045, 1, 1);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)
}

fn wildcard(domain: &str, authority: &CertifiedIssuer<'static, KeyPair>) -> Result<(String, KeyPair), rcgen::Error> {
    let names = [format!("*.{domain}"), domain.to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name.push(DnType::CommonName, format!("*.{domain}"));
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.use_authority_key_identifier_extension = true;
    parameters.not_before = date_time_ymd(2025, 1, 1);
    parameters.not_after = date_time_ymd(2045, 1, 1);
    let key = KeyPair::generate()?;
    let certificate = parameters.signed_by(&key, authority)?;
    Ok((certificate.pem(), key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_finds_the_certificates_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = Certificates::of_folder(folder.path(), "chutes.localhost").unwrap();
        let text = std::fs::read(&first.authority).unwrap();
        let second = Certificates::of_folder(folder.path(), "chutes.localhost").unwrap();
        assert_eq!(std::fs::read(&second.authority).unwrap(), text);
        assert!(second.folder.join("_.chutes.localhost.key").exists());
    }
}
