//! A few hands for work off the clock: containers made or removed by the hundred.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// How many work at once: as a daemon under load does.
const HANDS: usize = 4;

/// Does `work` on all items, a few at a time; gives the results in any order.
pub(super) fn share<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let queue: Mutex<VecDeque<T>> = Mutex::new(items.into_iter().collect());
    let next = || {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.pop_front()
    };
    let hand = || -> Vec<R> { std::iter::from_fn(&next).map(&work).collect() };
    thread::scope(|scope| {
        let hands: Vec<_> = (0..HANDS).map(|_| scope.spawn(hand)).collect();
        let done = hands.into_iter().map(|h| h.join().expect("a hand"));
        done.flatten().collect()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn everything_is_done_once() {
        let mut done = super::share(0..100, |n| n * 2);
        done.sort_unstable();
        assert_eq!(done, (0..100).map(|n| n * 2).collect::<Vec<_>>());
        assert!(super::share(Vec::<i32>::new(), |n| n).is_empty());
    }
}
