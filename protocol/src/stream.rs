//! A turn read as a stream of numbered steps. Pure: the same turn gives the same steps with the same numbers, on any
//! node, at any time, however much of it was there when the reading began.

use crate::turn::{Output, Turn};

/// One event of the stream. `output` is an index into [`Turn::outputs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Created,
    Queued,
    InProgress,
    OutputAdded {
        output: usize,
    },
    PartAdded {
        output: usize,
    },
    /// Bytes `from..to` of the message's text.
    TextDelta {
        output: usize,
        from: usize,
        to: usize,
    },
    TextDone {
        output: usize,
    },
    PartDone {
        output: usize,
    },
    ArgumentsDelta {
        output: usize,
    },
    ArgumentsDone {
        output: usize,
    },
    OutputDone {
        output: usize,
    },
    Ended,
}

/// A place in the stream of one turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Sequence number of the next step.
    sequence: u64,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Created,
    Queued,
    InProgress,
    /// Before output `0`'s beginning, or behind the last.
    Output(usize),
    Part(usize),
    Piece {
        output: usize,
        piece: usize,
        at: usize,
    },
    PartDone(usize),
    ArgumentsDone(usize),
    /// Arguments, for calls.
    Arguments(usize),
    OutputDone(usize),
    Done,
}

impl Cursor {
    /// Sequence number of the step that comes next.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether the last step has been taken.
    pub fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    /// The next step and its sequence number, where the turn is that far.
    pub fn step(&mut self, turn: &Turn) -> Option<(u64, Step)> {
        let (step, place) = self.ahead(turn)?;
        let sequence = self.sequence;
        self.sequence += 1;
        self.place = place;
        Some((sequence, step))
    }

    fn ahead(&self, turn: &Turn) -> Option<(Step, Place)> {
        let ended = turn.outcome.is_some();
        let mut place = self.place;
        loop {
            place = match place {
                Place::Created => return Some((Step::Created, Place::Queued)),
                Place::Queued if turn.accepted.queued => return Some((Step::Queued, Place::InProgress)),
                Place::Queued => Place::InProgress,
                Place::InProgress if !turn.attempts.is_empty() => return Some((Step::InProgress, Place::Output(0))),
                Place::InProgress if ended => Place::Output(0),
                Place::InProgress => return None,
                Place::Output(output) => match turn.outputs.get(output) {
                    Some(Output::Message { .. }) => return Some((Step::OutputAdded { output }, Place::Part(output))),
                    Some(Output::Call(_)) => return Some((Step::OutputAdded { output }, Place::Arguments(output))),
                    None if ended => return Some((Step::Ended, Place::Done)),
                    None => return None,
                },
                Place::Part(output) => {
                    return Some((Step::PartAdded { output }, Place::Piece { output, piece: 0, at: 0 }));
                }
                Place::Piece { output, piece, at } => {
                    let Some(Output::Message { pieces, .. }) = turn.outputs.get(output) else { return None };
                    match pieces.get(piece) {
                        Some(length) => {
                            let to = at + *length as usize;
                            let next = Place::Piece { output, piece: piece + 1, at: to };
                            return Some((Step::TextDelta { output, from: at, to }, next));
                        }
                        None if ended || output + 1 < turn.outputs.len() => {
                            return Some((Step::TextDone { output }, Place::PartDone(output)));
                        }
                        None => return None,
                    }
                }
                Place::PartDone(output) => return Some((Step::PartDone { output }, Place::OutputDone(output))),
                Place::Arguments(output) => {
                    return Some((Step::ArgumentsDelta { output }, Place::ArgumentsDone(output)));
                }
                Place::ArgumentsDone(output) => {
                    return Some((Step::ArgumentsDone { output }, Place::OutputDone(output)));
                }
                // Its status depends on whether anything follows, so it waits until that is known.
                Place::OutputDone(output) if ended || output + 1 < turn.outputs.len() => {
                    return Some((Step::OutputDone { output }, Place::Output(output + 1)));
                }
                Place::OutputDone(_) | Place::Done => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::sync::Arc;

    use super::*;
    use crate::event::{Attempt, AttemptReason};
    use crate::turn::tests::{accepted, change};
    use crate::turn::{Change, Outcome, Usage};

    fn all(cursor: &mut Cursor, turn: &Turn) -> Vec<(u64, Step)> {
        std::iter::from_fn(|| cursor.step(turn)).collect()
    }

    proptest! {
        #[test]
        fn a_stream_read_as_it_grows_is_the_stream_read_at_the_end(
            changes in proptest::collection::vec(change(), 0..12), queued: bool,
        ) {
            let mut turn = Turn::new(accepted(0), 0);
            Arc::make_mut(&mut turn.accepted).queued = queued;
            let mut cursor = Cursor::default();
            let mut growing = all(&mut cursor, &turn);
            turn.apply(Change::Attempt(Attempt { n: 1, incarnation: 1, reason: AttemptReason::First }));
            for change in changes {
                turn.apply(change);
                growing.extend(all(&mut cursor, &turn));
            }
            turn.apply(Change::Ended { outcome: Outcome::Completed { usage: Usage::default() }, at_ms: 5 });
            growing.extend(all(&mut cursor, &turn));
            prop_assert!(cursor.is_done());
            prop_assert_eq!(&growing, &all(&mut Cursor::default(), &turn));
            for (n, (sequence, _)) in growing.iter().enumerate() {
                prop_assert_eq!(n as u64, *sequence);
            }
        }
    }

    #[test]
    fn a_turn_cancelled_in_the_queue_has_no_progress() {
        let mut turn = Turn::new(accepted(0), 0);
        Arc::make_mut(&mut turn.accepted).queued = true;
        turn.apply(Change::Ended { outcome: Outcome::Cancelled { keep: false }, at_ms: 5 });
        let steps: Vec<_> = all(&mut Cursor::default(), &turn).into_iter().map(|(_, step)| step).collect();
        assert_eq!(steps, [Step::Created, Step::Queued, Step::Ended]);
    }
}
