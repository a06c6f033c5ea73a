//! Opening a connection where a name has several addresses (RFC 8305, "happy eyeballs").

use std::{net::SocketAddr, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::sleep;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Longest time that an address has to itself before the next is tried beside it (RFC 8305, 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// The addresses in the order in which they are tried: the one that worked last goes first.
pub(super) fn in_order(
    addresses: impl Iterator<Item = SocketAddr>,
    worked: Option<SocketAddr>,
) -> Vec<SocketAddr> {
    let mut addresses: Vec<_> = addresses.take(ADDRESSES_MAX).collect();
    if let Some(at) = addresses.iter().position(|address| Some(*address) == worked) {
        addresses[..=at].rotate_right(1);
    }
    addresses
}

/// Opens by the first address that can be opened. Each gets its part of `time` alone and goes on beside those after it,
/// so that one which swallows packets costs a moment and not the whole time.
///
/// # Errors
/// The first of their errors, when all have failed; `None` without any address.
pub(super) async fn first_open<T, E, F>(
    addresses: &[SocketAddr],
    time: Duration,
    open: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, T), Option<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let head_start = HEAD_START.min(time / addresses.len().max(1) as u32);
    let (mut attempts, mut error) = (FuturesUnordered::new(), None);
    let mut rest = addresses.iter().copied();
    loop {
        let next = rest.next();
        let is_last = next.is_none();
        if let Some(address) = next {
            let opening = open(address);
            attempts.push(async move { (address, opening.await) });
        }
        let alone = async { if is_last { std::future::pending().await } else { sleep(head_start).await } };
        tokio::select! {
            biased;
            ended = attempts.next() => match ended {
                Some((address, Ok(opened))) => return Ok((address, opened)),
                Some((_, Err(why))) => drop(error.get_or_insert(why)),
                None if is_last => return Err(error),
                None => {}
            },
            () = alone => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 9090))
    }

    /// The behaviour of each address: swallows packets, refuses at once, or opens after a time.
    async fn act(address: SocketAddr) -> Result<u8, &'static str> {
        match address.ip().to_string().as_str() {
            "10.0.0.1" | "10.0.0.2" => std::future::pending().await,
            "10.0.0.3" => return Err("refused"),
            "10.0.0.4" => sleep(Duration::from_millis(400)).await,
            _ => {}
        }
        Ok(0)
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_swallows_packets_costs_a_moment() {
        let time = Duration::from_secs(2);
        for (numbers, opened, ms) in [
            (vec![5], Some(5), 0),
            (vec![1, 5], Some(5), 250),
            (vec![1, 2, 5], Some(5), 500),
            (vec![3, 5], Some(5), 0),
            (vec![4, 1, 5], Some(4), 400),
            (vec![1, 4], Some(4), 650),
            (vec![3, 3], None, 0),
            (vec![], None, 0),
        ] {
            let began = Instant::now();
            let addresses: Vec<_> = numbers.iter().copied().map(address).collect();
            let result = first_open(&addresses, time, act).await;
            assert_eq!(result.as_ref().ok().map(|(by, _)| *by), opened.map(address), "{numbers:?}");
            assert_eq!(began.elapsed().as_millis(), ms, "{numbers:?}");
            let is_refused = result.is_err_and(|error| error == Some("refused"));
            assert_eq!(is_refused, numbers == [3, 3]);
        }
        // Many addresses in a short time: each has its part.
        let addresses: Vec<_> = [1, 2, 1, 2, 1, 2, 1, 5].map(address).into();
        let (began, time) = (Instant::now(), Duration::from_millis(400));
        assert!(first_open(&addresses, time, act).await.is_ok() && began.elapsed() < time);
    }

    #[test]
    fn the_address_that_worked_goes_first() {
        let all = [1, 2, 3].map(address);
        let order = |worked| in_order(all.into_iter(), worked);
        assert_eq!(order(None), all);
        assert_eq!(order(Some(address(3))), [3, 1, 2].map(address));
        assert_eq!(order(Some(address(9))), all);
        assert_eq!(in_order((0..200).map(address), None).len(), ADDRESSES_MAX);
    }
}
