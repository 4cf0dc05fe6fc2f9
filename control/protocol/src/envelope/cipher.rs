//! AES-128-CBC with PKCS#7 padding, as the SDK uses it.

use aes::Aes128;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};

use super::EnvelopeError;
use crate::sealing::InstanceKey;

/// An initialisation vector.
pub type Iv = [u8; 16];

/// Length of an IV in hex.
const IV_DIGITS: usize = 32;

/// A new IV, unpredictable as CBC needs it.
pub(super) fn random_iv() -> Iv {
    rand::random()
}

pub(super) fn encrypt(key: &InstanceKey, iv: &Iv, plain: &[u8]) -> Vec<u8> {
    cbc::Encryptor::<Aes128>::new(key.bytes().into(), iv.into()).encrypt_padded_vec::<Pkcs7>(plain)
}

pub(super) fn decrypt(key: &InstanceKey, iv: &Iv, mut sealed: Vec<u8>) -> Result<Bytes, EnvelopeError> {
    let decryptor = cbc::Decryptor::<Aes128>::new(key.bytes().into(), iv.into());
    let length = decryptor.decrypt_padded::<Pkcs7>(&mut sealed).map_err(|_| EnvelopeError::Cipher)?.len();
    sealed.truncate(length);
    Ok(sealed.into())
}

/// Base64 of the ciphertext, without the IV.
pub(super) fn encrypt_base64(key: &InstanceKey, iv: &Iv, plain: &[u8]) -> String {
    STANDARD.encode(encrypt(key, iv, plain))
}

/// Opens what [`encrypt_base64`] makes.
pub(super) fn decrypt_base64(key: &InstanceKey, iv: &Iv, text: &[u8]) -> Result<Bytes, EnvelopeError> {
    decrypt(key, iv, STANDARD.decode(text).map_err(|_| EnvelopeError::Encoding)?)
}

/// Takes the hex IV off the front of a text.
pub(super) fn split_iv(text: &[u8]) -> Result<(Iv, &[u8]), EnvelopeError> {
    let (digits, rest) = text.split_at_checked(IV_DIGITS).ok_or(EnvelopeError::Encoding)?;
    let mut iv = Iv::default();
    hex::decode_to_slice(digits, &mut iv).map_err(|_| EnvelopeError::Encoding)?;
    Ok((iv, rest))
}

#[cfg(test)]
mod tests;
