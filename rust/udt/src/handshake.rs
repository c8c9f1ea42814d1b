//! The handshake: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2b, one round trip, with WireGuard's tags and cookies.

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::{Zeroize, Zeroizing};

use crate::error::Malformed;
use crate::packet::{
    Cookie, INIT_MAC1, INIT_PADDED, Init, RESP_LEN, RESP_MAC1, Resp, SETTINGS_LEN, Settings,
};
use crate::rng::Rng;
use crate::sodium::{self, Forged};

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2b";

/// A node's public key on the transport: X25519.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PublicKey(pub [u8; 32]);

/// A node's private key on the transport. Never shown.
#[derive(Clone)]
pub struct PrivateKey(Zeroizing<[u8; 32]>);

/// A key that all members of a cluster share. Never shown.
#[derive(Clone)]
pub struct PresharedKey(Zeroizing<[u8; 32]>);

impl PrivateKey {
    /// The key with these bytes: any will do, X25519 clamps them.
    pub fn new(bytes: [u8; 32]) -> Self {
        PrivateKey(Zeroizing::new(bytes))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        let mut public = PublicKey([0; 32]);
        if let Some(mut dh) = DefaultResolver.resolve_dh(&DHChoice::Curve25519) {
            dh.set(&self.0[..]);
            public.0.copy_from_slice(dh.pubkey());
        }
        public
    }
}

impl PresharedKey {
    /// The key with these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        PresharedKey(Zeroizing::new(bytes))
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl std::fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

/// What both ends of a handshake come out with.
pub(crate) struct Secrets {
    pub sending: Zeroizing<[u8; 32]>,
    pub receiving: Zeroizing<[u8; 32]>,
}

/// Snow's primitives, with our randomness.
struct Resolver(std::sync::Mutex<Option<Rng>>);

struct SnowRng(Rng);

impl Random for SnowRng {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill(out);
        Ok(())
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        let rng = self.0.lock().ok()?.take()?;
        Some(Box::new(SnowRng(rng)))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

fn builder<'a>(rng: &mut Rng, key: &'a PrivateKey, prologue: &'a [u8]) -> Result<Builder<'a>, snow::Error> {
    let resolver = Resolver(std::sync::Mutex::new(Some(rng.fork())));
    let builder = Builder::with_resolver(PATTERN.parse()?, Box::new(resolver));
    builder.local_private_key(&key.0[..])?.prologue(prologue)
}

/// An INIT that was sent, and waits for its RESP.
pub(crate) struct Initiation {
    noise: Box<HandshakeState>,
    /// The INIT's first tag, to which a cookie is sealed.
    mac1: [u8; 16],
}

impl Initiation {
    /// Writes an INIT to the owner of `peer`, with mac2 if there is a cookie.
    #[expect(clippy::too_many_arguments, reason = "each is one field of the datagram, or a key")]
    pub fn write(
        rng: &mut Rng,
        key: &PrivateKey,
        peer: &PublicKey,
        (psk_id, psk): (u8, &PresharedKey),
        sender: u32,
        settings: &Settings,
        cookie: Option<&[u8; 16]>,
        out: &mut Vec<u8>,
    ) -> Result<Self, snow::Error> {
        let header = Init::header(psk_id, sender);
        let builder = builder(rng, key, &header)?.remote_public_key(&peer.0)?.psk(2, &psk.0)?;
        let mut noise = Box::new(builder.build_initiator()?);
        let start = out.len();
        out.extend_from_slice(&header);
        out.resize(start + INIT_PADDED, 0);
        let datagram = &mut out[start..];
        noise.write_message(&settings.bytes(), &mut datagram[8..INIT_MAC1])?;
        let mac1 = mac1(peer, &datagram[..INIT_MAC1]);
        datagram[INIT_MAC1..INIT_MAC1 + 16].copy_from_slice(&mac1);
        if let Some(cookie) = cookie {
            let mac2 = tag(cookie, &[&datagram[..INIT_MAC1 + 16]]);
            datagram[INIT_MAC1 + 16..INIT_MAC1 + 32].copy_from_slice(&mac2);
        }
        Ok(Initiation { noise, mac1 })
    }

    /// Reads the RESP; `None` if it was sealed with another key of a cluster. A wrong one leaves the
    /// initiation as it was.
    pub fn read_resp(&mut self, resp: &Resp<'_>) -> Result<Option<(Settings, Secrets)>, Malformed> {
        let mut payload = [0; SETTINGS_LEN];
        let Ok(len) = self.noise.read_message(resp.noise, &mut payload) else { return Ok(None) };
        let settings = Settings::parse(&payload[..len])?;
        let (mut sending, mut receiving) = self.noise.dangerously_get_raw_split();
        let secrets = Secrets { sending: Zeroizing::new(sending), receiving: Zeroizing::new(receiving) };
        sending.zeroize();
        receiving.zeroize();
        Ok(Some((settings, secrets)))
    }

    /// Opens a cookie that answers this INIT.
    pub fn read_cookie(&self, peer: &PublicKey, cookie: &Cookie) -> Result<[u8; 16], Forged> {
        sodium::open_cookie(&cookie_key(peer), &cookie.nonce, &self.mac1, &cookie.sealed)
    }
}

/// An INIT that was read, and may be answered.
pub(crate) struct Answer {
    noise: Box<HandshakeState>,
    /// Who asks.
    pub peer: PublicKey,
    pub settings: Settings,
    sender: u32,
    psk_id: u8,
}

impl Answer {
    /// Reads an INIT whose first tag was checked.
    pub fn read(rng: &mut Rng, key: &PrivateKey, init: &Init<'_>) -> Result<Self, Malformed> {
        let wrong = Malformed::Value("the handshake");
        let header = Init::header(init.psk_id, init.sender);
        let builder = builder(rng, key, &header).map_err(|_| wrong)?;
        let mut noise = Box::new(builder.build_responder().map_err(|_| wrong)?);
        let mut payload = [0; SETTINGS_LEN];
        let len = noise.read_message(init.noise, &mut payload).map_err(|_| wrong)?;
        let settings = Settings::parse(&payload[..len])?;
        let peer = noise.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(wrong)?;
        Ok(Answer { noise, peer: PublicKey(peer), settings, sender: init.sender, psk_id: init.psk_id })
    }

    /// The number of the pre-shared key that the asker names.
    pub fn psk_id(&self) -> u8 {
        self.psk_id
    }

    /// The asker's name for the session.
    pub fn sender(&self) -> u32 {
        self.sender
    }

    /// Writes the RESP.
    pub fn write(
        mut self,
        psk: &PresharedKey,
        index: u32,
        settings: &Settings,
        out: &mut Vec<u8>,
    ) -> Result<Secrets, snow::Error> {
        self.noise.set_psk(2, &psk.0[..])?;
        let start = out.len();
        out.extend_from_slice(&Resp::header(index, self.sender));
        out.resize(start + RESP_LEN, 0);
        let datagram = &mut out[start..];
        self.noise.write_message(&settings.bytes(), &mut datagram[12..RESP_MAC1])?;
        let mac1 = mac1(&self.peer, &datagram[..RESP_MAC1]);
        datagram[RESP_MAC1..RESP_MAC1 + 16].copy_from_slice(&mac1);
        let (mut receiving, mut sending) = self.noise.dangerously_get_raw_split();
        let secrets = Secrets { sending: Zeroizing::new(sending), receiving: Zeroizing::new(receiving) };
        sending.zeroize();
        receiving.zeroize();
        Ok(secrets)
    }
}

/// The tag that everybody can make who knows the receiver's public key: it keeps strangers from costing more
/// than a hash.
pub(crate) fn mac1(receiver: &PublicKey, before: &[u8]) -> [u8; 16] {
    tag(&mac1_key(receiver), &[before])
}

/// What `mac1` hashes with.
pub(crate) fn mac1_key(receiver: &PublicKey) -> [u8; 32] {
    let mut key = [0; 32];
    sodium::hash(&[], &[b"tpd1-mac1", &receiver.0], &mut key);
    key
}

fn cookie_key(receiver: &PublicKey) -> [u8; 32] {
    let mut key = [0; 32];
    sodium::hash(&[], &[b"tpd1-cookie", &receiver.0], &mut key);
    key
}

/// A keyed BLAKE2b of 16 bytes.
pub(crate) fn tag(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut tag = [0; 16];
    sodium::hash(key, parts, &mut tag);
    tag
}

/// Answers an INIT with a cookie: what its sender must show to be heard from that address.
pub(crate) fn write_cookie(
    rng: &mut Rng,
    ours: &PublicKey,
    init: &Init<'_>,
    cookie: &[u8; 16],
    out: &mut Vec<u8>,
) {
    let nonce = rng.array();
    let sealed = sodium::seal_cookie(&cookie_key(ours), &nonce, init.mac1, cookie);
    Cookie { receiver: init.sender, nonce, sealed }.write(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(stamp: u64) -> Settings {
        Settings {
            stamp,
            token: 2,
            suites: 1,
            datagram_max: 1400,
            window: 5,
            message_window: 6,
            messages: 7,
            message_max: 8,
        }
    }

    #[test]
    fn both_ends_come_out_with_the_same_secrets() {
        let mut rng = Rng::new([7; 32]);
        let (ours, theirs) = (PrivateKey::new(rng.array()), PrivateKey::new(rng.array()));
        let psk = PresharedKey::new([3; 32]);
        let (mut init, mut resp) = (Vec::new(), Vec::new());
        let peer = theirs.public();
        let mut initiation =
            Initiation::write(&mut rng, &ours, &peer, (1, &psk), 11, &settings(1), None, &mut init).unwrap();
        let parsed = Init::parse(&init).unwrap();
        assert_eq!(parsed.mac1, mac1(&theirs.public(), &init[..INIT_MAC1]));
        let answer = Answer::read(&mut rng, &theirs, &parsed).unwrap();
        assert_eq!((answer.peer, answer.settings, answer.sender()), (ours.public(), settings(1), 11));
        let right = answer.write(&psk, 22, &settings(2), &mut resp).unwrap();
        assert!(resp.len() < init.len());
        let (told, left) = initiation.read_resp(&Resp::parse(&resp).unwrap()).unwrap().unwrap();
        assert_eq!(told, settings(2));
        assert!(left.sending == right.receiving && left.receiving == right.sending);
    }

    #[test]
    fn another_cluster_is_not_understood() {
        let mut rng = Rng::new([7; 32]);
        let (ours, theirs) = (PrivateKey::new(rng.array()), PrivateKey::new(rng.array()));
        let (psk, other) = (PresharedKey::new([3; 32]), PresharedKey::new([4; 32]));
        let (mut init, mut resp) = (Vec::new(), Vec::new());
        let peer = theirs.public();
        let mut initiation =
            Initiation::write(&mut rng, &ours, &peer, (1, &psk), 11, &settings(1), None, &mut init).unwrap();
        let answer = Answer::read(&mut rng, &theirs, &Init::parse(&init).unwrap()).unwrap();
        answer.write(&other, 22, &settings(2), &mut resp).unwrap();
        assert!(initiation.read_resp(&Resp::parse(&resp).unwrap()).unwrap().is_none());
        resp.clear();
        let answer = Answer::read(&mut rng, &theirs, &Init::parse(&init).unwrap()).unwrap();
        answer.write(&psk, 22, &settings(2), &mut resp).unwrap();
        assert!(
            initiation.read_resp(&Resp::parse(&resp).unwrap()).unwrap().is_some(),
            "a forged answer harms nothing"
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?} {:?}", PrivateKey::new([171; 32]), PresharedKey::new([171; 32]));
        assert!(!shown.contains("171") && !shown.contains("ab"), "{shown}");
    }
}
