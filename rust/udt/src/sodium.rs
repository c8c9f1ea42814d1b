//! libsodium, the only unsafe code of this crate: sealing, keyed hashes and comparison in constant time.
//!
//! Every function takes slices and arrays of the lengths that libsodium wants, so that a caller cannot get
//! them wrong. Keys are wiped when they are dropped.
#![allow(unsafe_code)]

use std::ffi::c_ulonglong;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

use libsodium_sys as sodium;
use zeroize::Zeroize;

/// A tag did not match: the bytes are not what the owner of the key sealed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Forged;

/// Starts libsodium; true if the processor has the instructions for AES.
pub(crate) fn has_aes() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| {
        // SAFETY: both calls take no argument, and libsodium lets them run at any time on any thread.
        unsafe { sodium::sodium_init() >= 0 && sodium::crypto_aead_aes256gcm_is_available() == 1 }
    })
}

/// BLAKE2b over the parts in order, with a key of up to 64 bytes; `out` has 16 to 64.
pub(crate) fn hash(key: &[u8], parts: &[&[u8]], out: &mut [u8]) {
    assert!(key.len() <= 64 && (16..=64).contains(&out.len()), "the lengths that BLAKE2b takes");
    has_aes();
    let mut state = sodium::crypto_generichash_blake2b_state { opaque: [0; 384] };
    // SAFETY: the state is of libsodium's own type, and each pointer goes with the length of its slice.
    unsafe {
        sodium::crypto_generichash_init(&raw mut state, key.as_ptr(), key.len(), out.len());
        for part in parts {
            sodium::crypto_generichash_update(&raw mut state, part.as_ptr(), part.len() as c_ulonglong);
        }
        sodium::crypto_generichash_final(&raw mut state, out.as_mut_ptr(), out.len());
        // Byte by byte, as `zeroize` does it, costs as much as the hash.
        sodium::sodium_memzero((&raw mut state).cast(), size_of_val(&state));
    }
}

/// Whether two secrets are equal, in a time that does not depend on where they differ.
pub(crate) fn same(left: &[u8], right: &[u8]) -> bool {
    // SAFETY: both slices have the length that is passed.
    left.len() == right.len()
        && unsafe { sodium::sodium_memcmp(left.as_ptr().cast(), right.as_ptr().cast(), left.len()) == 0 }
}

/// XChaCha20-Poly1305 of a 16-byte text: what a cookie travels in.
pub(crate) fn seal_cookie(key: &[u8; 32], nonce: &[u8; 24], ad: &[u8], text: &[u8; 16]) -> [u8; 32] {
    has_aes();
    let mut sealed = [0; 32];
    // SAFETY: `sealed` has room for the text and a tag of 16 bytes; key and nonce have their types' lengths.
    unsafe {
        sodium::crypto_aead_xchacha20poly1305_ietf_encrypt(
            sealed.as_mut_ptr(),
            null_mut(),
            text.as_ptr(),
            text.len() as c_ulonglong,
            ad.as_ptr(),
            ad.len() as c_ulonglong,
            null(),
            nonce.as_ptr(),
            key.as_ptr(),
        );
    }
    sealed
}

/// Undoes `seal_cookie`.
pub(crate) fn open_cookie(
    key: &[u8; 32],
    nonce: &[u8; 24],
    ad: &[u8],
    sealed: &[u8; 32],
) -> Result<[u8; 16], Forged> {
    has_aes();
    let mut text = [0; 16];
    // SAFETY: `text` has room for what is sealed without its tag; key and nonce have their types' lengths.
    let code = unsafe {
        sodium::crypto_aead_xchacha20poly1305_ietf_decrypt(
            text.as_mut_ptr(),
            null_mut(),
            null_mut(),
            sealed.as_ptr(),
            sealed.len() as c_ulonglong,
            ad.as_ptr(),
            ad.len() as c_ulonglong,
            nonce.as_ptr(),
            key.as_ptr(),
        )
    };
    if code == 0 { Ok(text) } else { Err(Forged) }
}

/// A key for packets, ready to use.
pub(crate) enum PacketKey {
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha(Box<[u8; 32]>),
    /// AEGIS-256 (draft-irtf-cfrg-aegis-aead).
    Aegis(Box<[u8; 32]>),
    /// AES-256-GCM, its key schedule computed.
    AesGcm(Box<sodium::crypto_aead_aes256gcm_state>),
}

impl PacketKey {
    /// ChaCha20-Poly1305 with this key.
    pub fn chacha(key: &[u8; 32]) -> Self {
        has_aes();
        PacketKey::ChaCha(Box::new(*key))
    }

    /// AEGIS-256 with this key.
    pub fn aegis(key: &[u8; 32]) -> Self {
        has_aes();
        PacketKey::Aegis(Box::new(*key))
    }

    /// AES-256-GCM with this key. The processor must have AES.
    pub fn aes_gcm(key: &[u8; 32]) -> Self {
        assert!(has_aes(), "AES-256-GCM without AES instructions");
        let mut state = Box::new(sodium::crypto_aead_aes256gcm_state { opaque: [0; 512] });
        // SAFETY: the state is of libsodium's own type, aligned as it asks, and the key has 32 bytes.
        unsafe { sodium::crypto_aead_aes256gcm_beforenm(&raw mut *state, key.as_ptr()) };
        PacketKey::AesGcm(state)
    }

    /// Bytes of a tag.
    pub fn tag_len(&self) -> usize {
        if matches!(self, PacketKey::Aegis(_)) { 32 } else { 16 }
    }

    /// The nonce of a packet number: little-endian, before or after zeros.
    fn nonce(&self, number: u64) -> [u8; 32] {
        let mut nonce = [0; 32];
        let start = if matches!(self, PacketKey::Aegis(_)) { 0 } else { 4 };
        nonce[start..start + 8].copy_from_slice(&number.to_le_bytes());
        nonce
    }

    /// Seals `text` in place; `tag` has `tag_len` bytes.
    pub fn seal(&self, number: u64, ad: &[u8], text: &mut [u8], tag: &mut [u8]) {
        self.seal_with(&self.nonce(number), ad, text, tag);
    }

    fn seal_with(&self, nonce: &[u8; 32], ad: &[u8], text: &mut [u8], tag: &mut [u8]) {
        assert_eq!(tag.len(), self.tag_len());
        let (m, len) = (text.as_mut_ptr(), text.len() as c_ulonglong);
        let (tag, a, a_len, n) = (tag.as_mut_ptr(), ad.as_ptr(), ad.len() as c_ulonglong, nonce.as_ptr());
        // SAFETY: libsodium seals in place when text and result are one; lengths go with their slices, the
        // tag's was checked, and 32 bytes of nonce are no less than any of the three reads.
        unsafe {
            match self {
                PacketKey::ChaCha(key) => sodium::crypto_aead_chacha20poly1305_ietf_encrypt_detached(
                    m,
                    tag,
                    null_mut(),
                    m,
                    len,
                    a,
                    a_len,
                    null(),
                    n,
                    key.as_ptr(),
                ),
                PacketKey::Aegis(key) => sodium::crypto_aead_aegis256_encrypt_detached(
                    m,
                    tag,
                    null_mut(),
                    m,
                    len,
                    a,
                    a_len,
                    null(),
                    n,
                    key.as_ptr(),
                ),
                PacketKey::AesGcm(state) => sodium::crypto_aead_aes256gcm_encrypt_detached_afternm(
                    m,
                    tag,
                    null_mut(),
                    m,
                    len,
                    a,
                    a_len,
                    null(),
                    n,
                    &raw const **state,
                ),
            }
        };
    }

    /// Opens `text` in place. Where the tag does not match, the text is lost.
    pub fn open(&self, number: u64, ad: &[u8], text: &mut [u8], tag: &[u8]) -> Result<(), Forged> {
        if tag.len() != self.tag_len() {
            return Err(Forged);
        }
        let nonce = self.nonce(number);
        let (m, len) = (text.as_mut_ptr(), text.len() as c_ulonglong);
        let (tag, a, a_len, n) = (tag.as_ptr(), ad.as_ptr(), ad.len() as c_ulonglong, nonce.as_ptr());
        let none = null_mut();
        // SAFETY: as in `seal`.
        let code = unsafe {
            match self {
                PacketKey::ChaCha(key) => sodium::crypto_aead_chacha20poly1305_ietf_decrypt_detached(
                    m,
                    none,
                    m,
                    len,
                    tag,
                    a,
                    a_len,
                    n,
                    key.as_ptr(),
                ),
                PacketKey::Aegis(key) => sodium::crypto_aead_aegis256_decrypt_detached(
                    m,
                    none,
                    m,
                    len,
                    tag,
                    a,
                    a_len,
                    n,
                    key.as_ptr(),
                ),
                PacketKey::AesGcm(state) => sodium::crypto_aead_aes256gcm_decrypt_detached_afternm(
                    m,
                    none,
                    m,
                    len,
                    tag,
                    a,
                    a_len,
                    n,
                    &raw const **state,
                ),
            }
        };
        if code == 0 { Ok(()) } else { Err(Forged) }
    }
}

impl Drop for PacketKey {
    fn drop(&mut self) {
        match self {
            PacketKey::ChaCha(key) | PacketKey::Aegis(key) => key.zeroize(),
            PacketKey::AesGcm(state) => state.opaque.zeroize(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// The bytes of `hex`, and zeros.
    fn padded<const N: usize>(hex: &str) -> [u8; N] {
        let mut out = [0; N];
        out[..hex.len() / 2].copy_from_slice(&bytes(hex));
        out
    }

    #[test]
    fn blake2b_is_that_of_rfc_7693() {
        let mut out = [0; 64];
        hash(&[], &[b"a", b"bc"], &mut out);
        assert_eq!(out[..16], bytes("ba80a53f981c4d0d6a2797b69f12f6e9"));
    }

    const SUNSCREEN: &[u8; 114] =
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
        for the future, sunscreen would be it.";

    /// Seals with a nonce that no packet number makes, as published vectors have it.
    fn sealed(key: &PacketKey, nonce: &str, ad: &str, text: &[u8]) -> Vec<u8> {
        let (mut text, mut tag) = (text.to_vec(), vec![0; key.tag_len()]);
        key.seal_with(&padded(nonce), &bytes(ad), &mut text, &mut tag);
        [text, tag].concat()
    }

    /// RFC 8439, 2.8.2.
    #[test]
    fn chacha20_poly1305_is_that_of_its_rfc() {
        let key = PacketKey::chacha(&std::array::from_fn(|at| 0x80 + at as u8));
        let expected = "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6\
            3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36\
            92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
            3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691";
        let ad = "50515253c0c1c2c3c4c5c6c7";
        assert_eq!(sealed(&key, "070000004041424344454647", ad, SUNSCREEN), bytes(expected));
    }

    /// Test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation".
    #[test]
    fn aes_256_gcm_is_that_of_its_paper() {
        let half = "feffe9928665731c6d6a8f9467308308";
        let key = PacketKey::aes_gcm(&padded(&half.repeat(2)));
        let text = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
            1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39";
        let expected = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
            8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662\
            76fc6ece0f4e1768cddf8853bb2d551b";
        let ad = "feedfacedeadbeeffeedfacedeadbeefabaddad2";
        assert_eq!(sealed(&key, "cafebabefacedbaddecaf888", ad, &bytes(text)), bytes(expected));
    }

    /// draft-irtf-cfrg-aegis-aead, the first vector of AEGIS-256.
    #[test]
    fn aegis_256_is_that_of_its_draft() {
        let key = PacketKey::aegis(&padded("1001"));
        let expected = "754fc3d8c973246dcc6d741412a4b236\
            1181a1d18091082bf0266f66297d167d2e68b845f61a3b0527d31fc7b7b89f13";
        assert_eq!(sealed(&key, "100002", "", &[0; 16]), bytes(expected));
    }

    /// draft-irtf-cfrg-xchacha, A.3.1: its text is longer than a cookie, and begins alike.
    #[test]
    fn a_cookie_is_sealed_as_in_the_draft() {
        let key = std::array::from_fn(|at| 0x80 + at as u8);
        let nonce = std::array::from_fn(|at| 0x40 + at as u8);
        let sealed = seal_cookie(&key, &nonce, b"", SUNSCREEN.first_chunk().unwrap());
        assert_eq!(sealed[..16], bytes("bd6d179d3e83d43b9576579493c0e939"));
    }

    /// Computed with the Python package `cryptography`: key 0 to 31, packet number 7, ad "ad".
    #[test]
    fn packets_are_sealed_as_elsewhere() {
        let key: [u8; 32] = std::array::from_fn(|at| at as u8);
        let cases = [
            (PacketKey::chacha(&key), "857af62a4d980fe4122bf304b2c34b55702b4502ebcf88321d"),
            (PacketKey::aes_gcm(&key), "8cd18f87228772ee64631583b77f410c53dca6840ec88e7465"),
        ];
        for (packet_key, expected) in cases {
            let (mut text, mut tag) = (*b"turbopump", [0; 16]);
            packet_key.seal(7, b"ad", &mut text, &mut tag);
            assert_eq!([&text[..], &tag].concat(), bytes(expected));
        }
    }

    #[test]
    fn every_suite_opens_what_it_sealed_and_nothing_else() {
        let key: [u8; 32] = std::array::from_fn(|at| at as u8);
        for packet_key in [PacketKey::chacha(&key), PacketKey::aegis(&key), PacketKey::aes_gcm(&key)] {
            let (mut text, mut tag) = (*b"turbopump", vec![0; packet_key.tag_len()]);
            packet_key.seal(7, b"ad", &mut text, &mut tag);
            assert_ne!(&text, b"turbopump");
            for bit in 0..8 * tag.len() {
                let (mut forged, mut copy) = (tag.clone(), text);
                forged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(packet_key.open(7, b"ad", &mut copy, &forged), Err(Forged));
            }
            let mut copy = text;
            assert_eq!(packet_key.open(8, b"ad", &mut copy, &tag), Err(Forged));
            assert_eq!(packet_key.open(7, b"ad", &mut text, &tag), Ok(()));
            assert_eq!(&text, b"turbopump");
        }
    }

    #[test]
    fn a_cookie_is_sealed_to_its_question() {
        let (key, nonce) = ([1; 32], [2; 24]);
        let sealed = seal_cookie(&key, &nonce, b"mac1", &[3; 16]);
        assert_eq!(open_cookie(&key, &nonce, b"mac1", &sealed), Ok([3; 16]));
        assert_eq!(open_cookie(&key, &nonce, b"mac2", &sealed), Err(Forged));
        assert!(same(&[1, 2], &[1, 2]) && !same(&[1, 2], &[1, 3]) && !same(&[1], &[1, 2]));
    }
}
