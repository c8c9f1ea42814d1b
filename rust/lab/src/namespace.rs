//! Network namespaces as `ip netns` names them, and the TUN devices in them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::LabError;

/// Where `ip netns` keeps them.
const FOLDER: &str = "/run/netns";

/// Moves this thread, and those that it starts from now on, into a namespace.
pub fn enter(name: &str) -> Result<(), LabError> {
    let path = format!("{FOLDER}/{name}");
    let file = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let file = file.map_err(LabError::system(path.clone()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(LabError::system(format!("entering {path}")))
}

/// Opens the wire's end of a TUN device of this thread's namespace: what is read from it was sent through the
/// device, and what is written to it is received there. The device stays when this is closed if `ip tuntap`
/// made it.
pub fn open_tun(name: &str) -> Result<OwnedFd, LabError> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file =
        open("/dev/net/tun", flags, Mode::empty()).map_err(LabError::system("opening /dev/net/tun"))?;
    let mut name_bytes = [0; libc::IFNAMSIZ];
    if name.len() >= libc::IFNAMSIZ {
        return Err(LabError::option("device", format!("{name:?} is longer than {}", libc::IFNAMSIZ - 1)));
    }
    for (to, from) in name_bytes.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let request = libc::ifreq {
        ifr_name: name_bytes,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: (libc::IFF_TUN | libc::IFF_NO_PI) as i16 },
    };
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is and stays while the call lasts.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    if result < 0 {
        return Err(LabError::system(format!("attaching to {name}"))(std::io::Error::last_os_error()));
    }
    Ok(file)
}
