//! A stream that is not touched again once it failed: one whose negotiation failed panics then (multistream-select 0.14).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::io::{AsyncRead, AsyncWrite};

/// A stream, until its first error.
#[derive(Debug)]
pub(super) struct Fuse<S> {
    stream: S,
    blown: bool,
}

impl<S: Unpin> Fuse<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, blown: false }
    }

    fn poll<T>(&mut self, poll: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if self.blown {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let result = poll(Pin::new(&mut self.stream));
        self.blown = matches!(result, Poll::Ready(Err(_)));
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Fuse<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_read(context, buffer))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Fuse<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(context, buffer))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(context))
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_close(context))
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Fails once, and panics afterwards, as such a stream does.
    struct Brittle(bool);

    impl Brittle {
        fn touch<T>(&mut self) -> Poll<io::Result<T>> {
            assert!(!std::mem::replace(&mut self.0, true), "touched again");
            Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
        }
    }

    impl AsyncRead for Brittle {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            self.touch()
        }
    }

    impl AsyncWrite for Brittle {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            self.touch()
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.touch()
        }

        fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.touch()
        }
    }

    #[test]
    fn after_an_error_the_stream_is_left_alone() {
        let (mut read, mut write) = Fuse::new(Brittle(false)).split();
        assert_eq!(block_on(read.read(&mut [0])).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(block_on(write.close()).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(block_on(write.write(&[0])).is_err() && block_on(write.flush()).is_err());
    }
}
