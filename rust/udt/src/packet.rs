//! The datagrams: INIT, RESP, COOKIE and DATA. Both directions of each format are here and nowhere else.
//!
//! All numbers are little-endian. The first byte tells a datagram from STUN (RFC 8489) on the same port.
//! Zeros are checked: no tag covers them all. Another version is told from noise by an INIT as long as ours,
//! with a right mac1 in the same place.
//!
//! ```text
//! 0x51 INIT    0 type  1 version  2 psk  3 zero  4 sender u32  8 Noise message 1 (e 32, s 48, payload 68)
//!              156 mac1 16  172 mac2 16  188 zeros up to 1200
//! 0x52 RESP    0 type  1 version  2 zero u16  4 sender u32  8 receiver u32  12 Noise message 2 (e 32,
//!              payload 68)  112 mac1 16  128 mac2 16
//! 0x53 COOKIE  0 type  1 zeros  4 receiver u32  8 nonce 24  32 sealed cookie 32
//! 0x54 DATA    0 type  1 flags  2 receiver u32  6 packet number u48  12 sealed frames, then the tag
//! ```

use crate::coding::Reader;
use crate::error::Malformed;

/// The version that this crate speaks.
pub(crate) const VERSION: u8 = 1;
/// First byte of an INIT.
pub(crate) const INIT: u8 = 0x51;
/// First byte of a RESP.
pub(crate) const RESP: u8 = 0x52;
/// First byte of a COOKIE.
pub(crate) const COOKIE: u8 = 0x53;
/// First byte of a DATA packet.
pub(crate) const DATA: u8 = 0x54;

/// Bytes of an INIT with its padding, so that no answer is larger than the question.
pub(crate) const INIT_PADDED: usize = 1200;
/// Where the first tag of an INIT is.
pub(crate) const INIT_MAC1: usize = 8 + 80 + SETTINGS_LEN + 16;
/// Bytes of a RESP.
pub(crate) const RESP_LEN: usize = RESP_MAC1 + 32;
/// Where the first tag of a RESP is.
pub(crate) const RESP_MAC1: usize = 12 + 32 + SETTINGS_LEN + 16;
/// Bytes before the sealed frames of a DATA packet.
pub(crate) const DATA_HEADER: usize = 12;
/// Flag of a DATA packet: please acknowledge at once.
pub(crate) const FLAG_ACK_NOW: u8 = 4;
/// Packet numbers have 48 bits.
pub(crate) const NUMBER_MAX: u64 = (1 << 48) - 1;

/// An INIT before its Noise message is read. The version, mac1 and mac2 are the endpoint's to check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Init<'a> {
    pub version: u8,
    pub psk_id: u8,
    pub sender: u32,
    pub noise: &'a [u8],
    pub mac1: &'a [u8],
    pub mac2: &'a [u8],
}

impl<'a> Init<'a> {
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram);
        if datagram.len() != INIT_PADDED {
            return Err(Malformed::Short);
        }
        let [kind, version, psk_id, zero] = reader.array()?;
        if kind != INIT {
            return Err(Malformed::Type(kind));
        }
        let init = Init {
            version,
            psk_id,
            sender: reader.u32()?,
            noise: reader.bytes(INIT_MAC1 - 8)?,
            mac1: reader.bytes(16)?,
            mac2: reader.bytes(16)?,
        };
        // No tag covers the padding, so it must not be able to carry anything.
        if zero != 0 || reader.rest() != [0; INIT_PADDED - INIT_MAC1 - 32] {
            return Err(Malformed::Value("the padding"));
        }
        Ok(init)
    }

    /// The bytes before the Noise message, which it also authenticates.
    pub fn header(psk_id: u8, sender: u32) -> [u8; 8] {
        let mut header = [INIT, VERSION, psk_id, 0, 0, 0, 0, 0];
        header[4..].copy_from_slice(&sender.to_le_bytes());
        header
    }
}

/// A RESP before its Noise message is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Resp<'a> {
    pub sender: u32,
    pub receiver: u32,
    pub noise: &'a [u8],
    pub mac1: &'a [u8],
}

impl<'a> Resp<'a> {
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram);
        if datagram.len() != RESP_LEN {
            return Err(Malformed::Short);
        }
        if reader.array()? != [RESP, VERSION, 0, 0] {
            return Err(Malformed::Value("the version"));
        }
        let resp = Resp {
            sender: reader.u32()?,
            receiver: reader.u32()?,
            noise: reader.bytes(RESP_MAC1 - 12)?,
            mac1: reader.bytes(16)?,
        };
        // A responder is never asked for a cookie: mac2 has no use here yet.
        if reader.rest().iter().any(|byte| *byte != 0) {
            return Err(Malformed::Value("mac2"));
        }
        Ok(resp)
    }

    pub fn header(sender: u32, receiver: u32) -> [u8; 12] {
        let mut header = [RESP, VERSION, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        header[4..8].copy_from_slice(&sender.to_le_bytes());
        header[8..].copy_from_slice(&receiver.to_le_bytes());
        header
    }
}

/// A COOKIE: "prove your address first".
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Cookie {
    pub receiver: u32,
    pub nonce: [u8; 24],
    pub sealed: [u8; 32],
}

impl Cookie {
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram);
        if reader.array()? != [COOKIE, 0, 0, 0] {
            return Err(Malformed::Value("the version"));
        }
        let cookie = Cookie { receiver: reader.u32()?, nonce: reader.array()?, sealed: reader.array()? };
        if reader.is_empty() { Ok(cookie) } else { Err(Malformed::Short) }
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[COOKIE, 0, 0, 0]);
        out.extend_from_slice(&self.receiver.to_le_bytes());
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.sealed);
    }
}

/// The header of a DATA packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    /// The session, by the receiver's index.
    pub receiver: u32,
    /// The packet number, below 2^48.
    pub number: u64,
    /// Whether the sender would like to hear at once.
    pub ack_now: bool,
}

impl Header {
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram);
        let [kind, flags] = reader.array()?;
        if kind != DATA || flags & !FLAG_ACK_NOW != 0 {
            return Err(Malformed::Value("the flags"));
        }
        let receiver = reader.u32()?;
        let mut number = [0; 8];
        number[..6].copy_from_slice(reader.bytes(6)?);
        Ok(Header { receiver, number: u64::from_le_bytes(number), ack_now: flags & FLAG_ACK_NOW != 0 })
    }

    pub fn bytes(&self) -> [u8; DATA_HEADER] {
        let mut bytes = [0; DATA_HEADER];
        bytes[0] = DATA;
        bytes[1] = if self.ack_now { FLAG_ACK_NOW } else { 0 };
        bytes[2..6].copy_from_slice(&self.receiver.to_le_bytes());
        bytes[6..].copy_from_slice(&self.number.to_le_bytes()[..6]);
        bytes
    }
}

/// Bytes of `Settings` inside a Noise message.
pub(crate) const SETTINGS_LEN: usize = 52;

/// What both sides tell each other inside of the handshake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Settings {
    /// When this was written, in nanoseconds since 1970: with the same token, a peer takes each only if it is
    /// newer than the last.
    pub stamp: u64,
    /// Names the connection, so that new keys for it are told from a new connection.
    pub token: u64,
    /// Cipher suites as bits in an INIT, the one chosen in a RESP.
    pub suites: u16,
    /// The largest datagram that the writer takes.
    pub datagram_max: u16,
    /// Bytes that the writer takes before it says more.
    pub window: u64,
    /// Bytes of one message that the writer takes before it says more.
    pub message_window: u64,
    /// Messages that the writer takes before it says more.
    pub messages: u64,
    /// The longest message that the writer takes.
    pub message_max: u64,
}

impl Settings {
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let settings = Settings {
            stamp: reader.u64()?,
            token: reader.u64()?,
            suites: reader.u16()?,
            datagram_max: reader.u16()?,
            window: reader.u64()?,
            message_window: reader.u64()?,
            messages: reader.u64()?,
            message_max: reader.u64()?,
        };
        if settings.datagram_max < INIT_PADDED as u16 {
            return Err(Malformed::Value("the largest datagram"));
        }
        if reader.is_empty() { Ok(settings) } else { Err(Malformed::Short) }
    }

    pub fn bytes(&self) -> [u8; SETTINGS_LEN] {
        let mut bytes = [0; SETTINGS_LEN];
        let parts: [&[u8]; 8] = [
            &self.stamp.to_le_bytes(),
            &self.token.to_le_bytes(),
            &self.suites.to_le_bytes(),
            &self.datagram_max.to_le_bytes(),
            &self.window.to_le_bytes(),
            &self.message_window.to_le_bytes(),
            &self.messages.to_le_bytes(),
            &self.message_max.to_le_bytes(),
        ];
        let mut at = 0;
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_comes_back(receiver: u32, number in 0..=NUMBER_MAX, ack_now: bool) {
            let header = Header { receiver, number, ack_now };
            prop_assert_eq!(Header::parse(&header.bytes()), Ok(header));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..1300)) {
            for kind in INIT..=DATA {
                if let Some(first) = bytes.first_mut() {
                    *first = kind;
                }
                let _ = Init::parse(&bytes);
                let _ = Resp::parse(&bytes);
                let _ = Header::parse(&bytes);
                let _ = Settings::parse(&bytes);
                if let Ok(cookie) = Cookie::parse(&bytes) {
                    let mut out = Vec::new();
                    cookie.write(&mut out);
                    prop_assert_eq!(&out, &bytes);
                }
            }
        }
    }

    #[test]
    fn settings_come_back() {
        let settings = Settings {
            stamp: 1,
            token: 2,
            suites: 3,
            datagram_max: 1400,
            window: 5,
            message_window: 6,
            messages: 7,
            message_max: 8,
        };
        assert_eq!(Settings::parse(&settings.bytes()), Ok(settings));
        assert_eq!(Settings::parse(&settings.bytes()[1..]), Err(Malformed::Short));
    }
}
