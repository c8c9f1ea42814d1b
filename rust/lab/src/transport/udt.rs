//! UDT 4.11 and SRT, by the libraries that Debian has. SRT grew out of UDT and kept its calls, so one file
//! knows both. Everything is at the libraries' defaults, but that SRT is told to move files and not films.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;

use super::library::{Loaded, load};
use super::{Class, Connection, Kind, Listener, Transport};
use crate::error::LabError;

const BACKLOG: c_int = 128;
/// No time to live: a message is resent until it arrives.
const FOR_EVER: c_int = -1;
/// `SRTO_MESSAGEAPI`, `SRTO_TRANSTYPE` and its value `SRTT_FILE`, of srt.h; 2 is critical errors only.
const SRT_MESSAGE_API: c_int = 48;
const SRT_TRANSMISSION_TYPE: c_int = 50;
const SRT_FILE: c_int = 1;
const SRT_LOG_CRITICAL: c_int = 2;

type Address = libc::sockaddr_in;

/// A library's calls. Both return -1 when one fails, and then say why to the thread that called.
struct Calls {
    bind: unsafe extern "C" fn(c_int, *const Address, c_int) -> c_int,
    listen: unsafe extern "C" fn(c_int, c_int) -> c_int,
    accept: unsafe extern "C" fn(c_int, *mut Address, *mut c_int) -> c_int,
    connect: unsafe extern "C" fn(c_int, *const Address, c_int) -> c_int,
    close: unsafe extern "C" fn(c_int) -> c_int,
    receive_message: unsafe extern "C" fn(c_int, *mut c_char, c_int) -> c_int,
    last_error: unsafe extern "C" fn() -> *const c_char,
    own: Own,
}

/// The calls in which they differ.
enum Own {
    Udt4 {
        socket: unsafe extern "C" fn(c_int, c_int, c_int) -> c_int,
        send: unsafe extern "C" fn(c_int, *const c_char, c_int, c_int) -> c_int,
        receive: unsafe extern "C" fn(c_int, *mut c_char, c_int, c_int) -> c_int,
        send_message: unsafe extern "C" fn(c_int, *const c_char, c_int, c_int, bool) -> c_int,
    },
    Srt {
        socket: unsafe extern "C" fn() -> c_int,
        set: unsafe extern "C" fn(c_int, c_int, *const c_void, c_int) -> c_int,
        send: unsafe extern "C" fn(c_int, *const c_char, c_int) -> c_int,
        receive: unsafe extern "C" fn(c_int, *mut c_char, c_int) -> c_int,
        send_message: unsafe extern "C" fn(c_int, *const c_char, c_int, c_int, c_int) -> c_int,
    },
}

/// UDT or SRT.
#[derive(Clone)]
pub struct Udt(Arc<Calls>);

impl Udt {
    /// libudt: C++ functions in the namespace `UDT`, so their names are mangled; udt.h has their types.
    pub fn udt4() -> Result<Self, LabError> {
        let library = load("libudt.so.0", "libudt0")?;
        // SAFETY: each type is that of the declaration in udt.h; `UDTSOCKET` is an int. No exception leaves
        // the library: the functions catch them all.
        unsafe {
            let calls = Calls {
                bind: library.function("_ZN3UDT4bindEiPK8sockaddri")?,
                listen: library.function("_ZN3UDT6listenEii")?,
                accept: library.function("_ZN3UDT6acceptEiP8sockaddrPi")?,
                connect: library.function("_ZN3UDT7connectEiPK8sockaddri")?,
                close: library.function("_ZN3UDT5closeEi")?,
                receive_message: library.function("_ZN3UDT7recvmsgEiPci")?,
                last_error: library.function("_ZN3UDT17getlasterror_descEv")?,
                own: Own::Udt4 {
                    socket: library.function("_ZN3UDT6socketEiii")?,
                    send: library.function("_ZN3UDT4sendEiPKcii")?,
                    receive: library.function("_ZN3UDT4recvEiPcii")?,
                    send_message: library.function("_ZN3UDT7sendmsgEiPKciib")?,
                },
            };
            Self::start(library, "_ZN3UDT7startupEv", calls)
        }
    }

    /// libsrt: C functions; srt.h has their types.
    pub fn srt() -> Result<Self, LabError> {
        let package = "libsrt1.5-openssl";
        let library = load("libsrt-openssl.so.1.5", package).or_else(|_| load("libsrt.so.1.5", package))?;
        // SAFETY: each type is that of the declaration in srt.h; `SRTSOCKET` and enums are ints.
        unsafe {
            let set_log: unsafe extern "C" fn(c_int) = library.function("srt_setloglevel")?;
            let calls = Calls {
                bind: library.function("srt_bind")?,
                listen: library.function("srt_listen")?,
                accept: library.function("srt_accept")?,
                connect: library.function("srt_connect")?,
                close: library.function("srt_close")?,
                receive_message: library.function("srt_recvmsg")?,
                last_error: library.function("srt_getlasterror_str")?,
                own: Own::Srt {
                    socket: library.function("srt_create_socket")?,
                    set: library.function("srt_setsockflag")?,
                    send: library.function("srt_send")?,
                    receive: library.function("srt_recv")?,
                    send_message: library.function("srt_sendmsg")?,
                },
            };
            let srt = Self::start(library, "srt_startup", calls)?;
            set_log(SRT_LOG_CRITICAL);
            Ok(srt)
        }
    }

    /// # Safety
    ///
    /// `startup` must be a function of the library that takes nothing and returns an int.
    unsafe fn start(library: Loaded, startup: &'static str, calls: Calls) -> Result<Self, LabError> {
        // SAFETY: the caller's promise. Both libraries count how often they are started.
        let result = unsafe { library.function::<unsafe extern "C" fn() -> c_int>(startup)?() };
        let udt = Udt(Arc::new(calls));
        udt.check(result).map_err(LabError::system(startup))?;
        Ok(udt)
    }

    fn socket(&self, kind: Kind) -> io::Result<Socket> {
        // SAFETY: the options are ints and bools of the sizes that are told.
        let number = unsafe {
            match &self.0.own {
                Own::Udt4 { socket, .. } => {
                    let of = if kind == Kind::Stream { libc::SOCK_STREAM } else { libc::SOCK_DGRAM };
                    self.check(socket(libc::AF_INET, of, 0))?
                }
                Own::Srt { socket, set, .. } => {
                    let number = self.check(socket())?;
                    let (file, messages) = (SRT_FILE, kind == Kind::Messages);
                    let file = (&raw const file).cast();
                    self.check(set(number, SRT_TRANSMISSION_TYPE, file, size_of::<c_int>() as c_int))?;
                    self.check(set(number, SRT_MESSAGE_API, (&raw const messages).cast(), 1))?;
                    number
                }
            }
        };
        Ok(Socket { number, udt: self.clone() })
    }

    /// What a call returned, or why it failed. To be asked by the thread that called.
    fn check(&self, result: c_int) -> io::Result<c_int> {
        if result != -1 {
            return Ok(result);
        }
        // SAFETY: the library returns text that stays until this thread's next call.
        let said = unsafe { CStr::from_ptr((self.0.last_error)()) };
        Err(io::Error::other(said.to_string_lossy().trim_end_matches(['.', ' ']).to_owned()))
    }
}

impl Transport for Udt {
    fn has_messages(&self) -> bool {
        true
    }

    fn listen(&self, address: SocketAddrV4, kind: Kind) -> io::Result<Box<dyn Listener>> {
        let socket = self.socket(kind)?;
        let address = system_address(address);
        // SAFETY: the address is valid for the call and as long as told.
        unsafe {
            self.check((self.0.bind)(socket.number, &raw const address, size_of::<Address>() as c_int))?;
            self.check((self.0.listen)(socket.number, BACKLOG))?;
        }
        Ok(Box::new(socket))
    }

    fn connect(&self, address: SocketAddrV4, kind: Kind) -> io::Result<Arc<dyn Connection>> {
        let socket = self.socket(kind)?;
        let address = system_address(address);
        // SAFETY: as above.
        let result =
            unsafe { (self.0.connect)(socket.number, &raw const address, size_of::<Address>() as c_int) };
        self.check(result)?;
        Ok(Arc::new(socket))
    }
}

fn system_address(address: SocketAddrV4) -> Address {
    Address {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

/// A socket of the library's. Any thread may use it: both libraries lock inside.
struct Socket {
    number: c_int,
    udt: Udt,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: the library knows its own numbers, and refuses others.
        unsafe { (self.udt.0.close)(self.number) };
    }
}

impl Listener for Socket {
    fn accept(&self) -> io::Result<Arc<dyn Connection>> {
        let mut address = system_address(SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0));
        let mut length = size_of::<Address>() as c_int;
        // SAFETY: the library writes an address of at most so many bytes.
        let result = unsafe { (self.udt.0.accept)(self.number, &raw mut address, &raw mut length) };
        Ok(Arc::new(Socket { number: self.udt.check(result)?, udt: self.udt.clone() }))
    }
}

impl Connection for Socket {
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let (start, length) = (bytes.as_ptr().cast(), limited(bytes.len()));
        // SAFETY: the bytes are valid for the call, and at least so many.
        let result = unsafe {
            match &self.udt.0.own {
                Own::Udt4 { send, .. } => send(self.number, start, length, 0),
                Own::Srt { send, .. } => send(self.number, start, length),
            }
        };
        Ok(self.udt.check(result)? as usize)
    }

    fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        let (start, length) = (into.as_mut_ptr().cast(), limited(into.len()));
        // SAFETY: there is room for so many bytes.
        let result = unsafe {
            match &self.udt.0.own {
                Own::Udt4 { receive, .. } => receive(self.number, start, length, 0),
                Own::Srt { receive, .. } => receive(self.number, start, length),
            }
        };
        Ok(self.udt.check(result)? as usize)
    }

    fn send_message(&self, message: &[u8], _class: Class) -> io::Result<()> {
        let (start, length) = (message.as_ptr().cast(), limited(message.len()));
        // SAFETY: the message is valid for the call and so long.
        let result = unsafe {
            match &self.udt.0.own {
                Own::Udt4 { send_message, .. } => send_message(self.number, start, length, FOR_EVER, false),
                Own::Srt { send_message, .. } => send_message(self.number, start, length, FOR_EVER, 0),
            }
        };
        self.udt.check(result).map(drop)
    }

    fn receive_message(&self, into: &mut [u8]) -> io::Result<usize> {
        let (start, length) = (into.as_mut_ptr().cast(), limited(into.len()));
        // SAFETY: there is room for so many bytes.
        let result = unsafe { (self.udt.0.receive_message)(self.number, start, length) };
        Ok(self.udt.check(result)? as usize)
    }
}

/// The libraries count in ints.
fn limited(length: usize) -> c_int {
    c_int::try_from(length).unwrap_or(c_int::MAX)
}
