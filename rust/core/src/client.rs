//! What is known about the client of a connection. Not its requests: those are its session's.

use std::sync::Arc;

use crate::error::Refusal;

/// Names and library names have at most this many bytes.
const NAME_MAX: usize = 128;

/// A client.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// The connection's number, never used twice.
    pub id: u64,
    /// What CLIENT SETNAME called it.
    pub name: String,
    /// The library it uses, as CLIENT SETINFO told.
    pub library: String,
    /// The version of that library.
    pub library_version: String,
    /// Whether it speaks RESP3.
    pub resp3: bool,
    /// Whether its replies in the pipe protocol carry their length.
    pub framed: bool,
    /// Whether it has yet to give the password.
    pub needs_password: bool,
    /// What the reactor knows its connection by.
    pub token: u64,
    /// It is told where a key is kept, rather than served from there.
    pub redirect: bool,
    /// It stands for another node, which has found out already where the key belongs.
    pub guest: bool,
    password: Option<Arc<[u8]>>,
}

impl Client {
    /// A client that must give the password, if there is one.
    pub fn new(id: u64, password: Option<Arc<[u8]>>) -> Self {
        Client { id, needs_password: password.is_some(), password, ..Client::default() }
    }

    /// Makes the client as new; it must give the password again.
    pub fn reset(&mut self) {
        let (token, guest, redirect) = (self.token, self.guest, self.redirect);
        *self = Client { token, guest, redirect, ..Client::new(self.id, self.password.take()) };
    }

    /// Checks a password; `None` when there is none to give.
    pub fn admit(&mut self, given: &[u8]) -> Option<bool> {
        let password = self.password.as_deref()?;
        // Every byte is looked at, so that the time taken tells nothing about the password.
        let differences = password.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
        let right = password.len() == given.len() && differences == 0;
        self.needs_password &= !right;
        Some(right)
    }

    /// Sets the client's name.
    ///
    /// # Errors
    /// The name has blanks or other unprintable characters, or is too long.
    pub fn set_name(&mut self, name: &[u8]) -> Result<(), Refusal> {
        self.name = plain(name).ok_or_else(|| {
            Refusal::Syntax("Client names cannot contain spaces, newlines or special characters.".into())
        })?;
        Ok(())
    }

    /// Notes what CLIENT SETINFO tells.
    ///
    /// # Errors
    /// The attribute is unknown, or its value is as `set_name` refuses.
    pub fn set_info(&mut self, attribute: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let bad = |what: &str| {
            Refusal::Syntax(format!("{what} cannot contain spaces, newlines or special characters."))
        };
        match attribute.to_ascii_lowercase().as_slice() {
            b"lib-name" => self.library = plain(value).ok_or_else(|| bad("lib-name"))?,
            b"lib-ver" => self.library_version = plain(value).ok_or_else(|| bad("lib-ver"))?,
            other => {
                let text = format!("Unrecognized option '{}'", crate::error::printable(other));
                return Err(Refusal::Syntax(text));
            }
        }
        Ok(())
    }
}

fn plain(text: &[u8]) -> Option<String> {
    let fits = text.len() <= NAME_MAX && text.iter().all(u8::is_ascii_graphic);
    fits.then(|| String::from_utf8_lossy(text).into_owned())
}
