//! What the two processes of an upgrade say to each other, and how sockets travel between them.

use std::io::{Error, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use rustix::process::geteuid;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// Most sockets that change hands.
const MOST: usize = 64;
/// How long either side may be silent.
const SILENCE: Duration = Duration::from_secs(20);

/// One word of the talk; all are as long as each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The next process is healthy and asks for the sockets.
    Ask,
    /// The running process gives them.
    Give,
    /// The next process accepts connections on them.
    Accepting,
    /// The running process stops to accept.
    Yours,
}

const LENGTH: usize = 8;

impl Word {
    fn bytes(self) -> &'static [u8; LENGTH] {
        match self {
            Self::Ask => b"ask/1  \n",
            Self::Give => b"give/1 \n",
            Self::Accepting => b"accept \n",
            Self::Yours => b"yours  \n",
        }
    }
}

/// Fails unless the other side is of the same user.
///
/// # Errors
/// When it is not, or the system does not say.
pub(super) fn check_peer(stream: &UnixStream) -> anyhow::Result<()> {
    let peer = stream.peer_cred().context("asking who is at the other end")?;
    ensure!(peer.uid() == geteuid().as_raw(), "the other side of the hand-over is of another user");
    Ok(())
}

/// Says a word.
///
/// # Errors
/// When the other side is gone.
pub(super) async fn say(stream: &mut UnixStream, word: Word) -> std::io::Result<()> {
    timely(stream.write_all(word.bytes())).await
}

/// Waits for a word; false when the other side hung up instead.
///
/// # Errors
/// When it is silent or says something else.
pub(super) async fn hear(stream: &mut UnixStream, word: Word) -> anyhow::Result<bool> {
    let mut heard = [0; LENGTH];
    match timely(stream.read_exact(&mut heard)).await {
        Ok(_) => {}
        Err(error) if is_gone(&error) => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("waiting for {word:?}")),
    }
    if &heard != word.bytes() {
        bail!("the other side speaks another version");
    }
    Ok(true)
}

/// Whether an error means that the other side hung up.
fn is_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Gives sockets away; they stay open here too.
///
/// # Errors
/// When the other side is gone.
pub(super) async fn give(stream: &UnixStream, sockets: &[BorrowedFd<'_>]) -> anyhow::Result<()> {
    ensure!(sockets.len() <= MOST, "more than {MOST} sockets cannot be handed over");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let send = || {
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(sockets));
        let word = [IoSlice::new(Word::Give.bytes())];
        Ok(sendmsg(stream, &word, &mut control, SendFlags::NOSIGNAL)?)
    };
    let sent = timely(stream.async_io(Interest::WRITABLE, send)).await.context("sending the sockets")?;
    ensure!(sent == LENGTH, "the sockets were not sent whole");
    Ok(())
}

/// Takes the sockets that the other side gives; none when it hung up instead.
///
/// # Errors
/// When it is silent or says something else.
pub(super) async fn take(stream: &UnixStream) -> anyhow::Result<Option<Vec<OwnedFd>>> {
    let mut word = [0; LENGTH];
    let mut sockets = Vec::new();
    let receive = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut text = [IoSliceMut::new(&mut word)];
        let received = recvmsg(stream, &mut text, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(given) = message {
                sockets.extend(given);
            }
        }
        Ok(received.bytes)
    };
    match timely(stream.async_io(Interest::READABLE, receive)).await {
        Ok(0) => return Ok(None),
        Ok(length) => ensure!(length == LENGTH && &word == Word::Give.bytes(), "the other side speaks another version"),
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error).context("waiting for the sockets"),
    }
    ensure!(!sockets.is_empty(), "the other side gave no socket");
    Ok(Some(sockets))
}

async fn timely<T>(step: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    tokio::time::timeout(SILENCE, step).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}
