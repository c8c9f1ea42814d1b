//! Whose turn it is: control first, then deficit round robin (Shreedhar and Varghese, 1995) by bytes.

use std::collections::VecDeque;

/// Shares of the classes: control needs none.
const WEIGHTS: [i64; 4] = [0, 8, 4, 1];
/// Packets that the smallest share is worth in a round.
const QUANTUM_PACKETS: i64 = 2;

/// Messages with something to send, by class: what was lost before what is new, each message in turn.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    lost: [VecDeque<u64>; 4],
    fresh: [VecDeque<u64>; 4],
    deficit: [i64; 4],
    turn: usize,
}

/// Which queue a message comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Queue {
    /// Bytes that were sent before, which need no credit.
    Lost,
    /// New bytes.
    Fresh,
}

impl Scheduler {
    fn queue(&mut self, queue: Queue, class: usize) -> &mut VecDeque<u64> {
        match queue {
            Queue::Lost => &mut self.lost[class],
            Queue::Fresh => &mut self.fresh[class],
        }
    }

    /// A message has something to send, after the others of its class.
    pub fn push(&mut self, queue: Queue, class: u8, id: u64) {
        self.queue(queue, class.into()).push_back(id);
    }

    /// A message has not had its turn yet.
    pub fn push_front(&mut self, queue: Queue, class: u8, id: u64) {
        self.queue(queue, class.into()).push_front(id);
    }

    fn head(&self, class: usize, credit: bool) -> Option<(Queue, u64)> {
        let lost = self.lost[class].front().map(|id| (Queue::Lost, *id));
        lost.or_else(|| self.fresh[class].front().filter(|_| credit).map(|id| (Queue::Fresh, *id)))
    }

    /// Whether anything can be sent; new bytes only with credit.
    pub fn is_empty(&self, credit: bool) -> bool {
        (0..4).all(|class| self.head(class, credit).is_none())
    }

    /// The message whose turn it is, taken out of its queue.
    pub fn pop(&mut self, credit: bool, packet: usize) -> Option<(Queue, u64)> {
        let class = if self.head(0, credit).is_some() { 0 } else { self.next_class(credit, packet)? };
        let (queue, id) = self.head(class, credit)?;
        self.queue(queue, class).pop_front();
        Some((queue, id))
    }

    fn next_class(&mut self, credit: bool, packet: usize) -> Option<usize> {
        // A deficit is at most a packet, so that one more round always finds somebody.
        for _ in 0..3 * 4 {
            // Whoever had the last turn; at the start the last class, so that requests begin.
            let class = if self.turn == 0 { 3 } else { self.turn };
            let waiting = self.head(class, credit).is_some();
            if waiting && self.deficit[class] > 0 {
                return Some(class);
            }
            if !waiting {
                self.deficit[class] = 0;
            }
            self.turn = class % 3 + 1;
            if self.head(self.turn, credit).is_some() {
                self.deficit[self.turn] += WEIGHTS[self.turn] * QUANTUM_PACKETS * packet as i64;
            }
        }
        (1..4).find(|class| self.head(*class, credit).is_some())
    }

    /// Bytes of a class were sent.
    pub fn on_sent(&mut self, class: u8, bytes: usize) {
        self.deficit[usize::from(class)] -= bytes as i64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_goes_first_and_the_others_share() {
        let mut scheduler = Scheduler::default();
        let mut sent = [0_usize; 4];
        for class in 1..4 {
            scheduler.push(Queue::Fresh, class, class.into());
        }
        for _ in 0..1300 {
            let (queue, id) = scheduler.pop(true, 1000).unwrap();
            sent[id as usize] += 1;
            scheduler.on_sent(id as u8, 1000);
            scheduler.push(queue, id as u8, id);
        }
        assert_eq!(sent, [0, 800, 400, 100]);
        scheduler.push(Queue::Fresh, 0, 0);
        assert_eq!(scheduler.pop(true, 1000), Some((Queue::Fresh, 0)));
    }

    #[test]
    fn a_request_waits_for_two_packets_of_bulk_at_most() {
        let mut scheduler = Scheduler::default();
        scheduler.push(Queue::Fresh, 3, 9);
        for _ in 0..7 {
            scheduler.pop(true, 1000);
            scheduler.on_sent(3, 1000);
            scheduler.push(Queue::Fresh, 3, 9);
        }
        scheduler.push(Queue::Fresh, 1, 5);
        let mut before = 0;
        while scheduler.pop(true, 1000) == Some((Queue::Fresh, 9)) {
            scheduler.on_sent(3, 1000);
            scheduler.push(Queue::Fresh, 3, 9);
            before += 1;
        }
        assert!(before <= 2, "{before}");
    }

    #[test]
    fn without_credit_only_what_was_lost_goes() {
        let mut scheduler = Scheduler::default();
        scheduler.push(Queue::Fresh, 1, 1);
        assert!(scheduler.is_empty(false) && !scheduler.is_empty(true));
        scheduler.push(Queue::Lost, 3, 2);
        assert_eq!(scheduler.pop(false, 1000), Some((Queue::Lost, 2)));
        assert_eq!(scheduler.pop(false, 1000), None);
    }
}
