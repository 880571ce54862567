//! Who listens, and the delivery of soft messages to them.

use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TrySendError};
use tracing::warn;

use crate::{
    BusError, Message, Pattern, Subject,
    bus::{Reply, SUBSCRIPTION_MESSAGES_MAX},
};

#[derive(Debug, Default)]
pub(super) struct Listeners {
    all: Vec<Listener>,
    /// Which member of a group comes first; counts up with each message to a group.
    turn: usize,
}

#[derive(Debug)]
struct Listener {
    pattern: Pattern,
    group: Option<&'static str>,
    messages: mpsc::Sender<Message>,
}

/// Where an answer goes.
type Answer = mpsc::Sender<Bytes>;

impl Listeners {
    pub(super) fn add(&mut self, pattern: Pattern, group: Option<&'static str>) -> mpsc::Receiver<Message> {
        self.all.retain(|listener| !listener.messages.is_closed());
        let (messages, receiver) = mpsc::channel(SUBSCRIPTION_MESSAGES_MAX);
        self.all.push(Listener { pattern, group, messages });
        receiver
    }

    /// Gives the message to every listener of its subject, and to one of each group; tells how many there were.
    pub(super) fn deliver(&mut self, subject: &Subject, payload: &Bytes, answer: Option<&Answer>) -> usize {
        let mut heard = 0;
        let mut groups: Vec<(&'static str, Vec<&Listener>)> = Vec::new();
        for listener in self.all.iter().filter(|listener| !listener.messages.is_closed() && listener.pattern.matches(subject)) {
            let Some(group) = listener.group else {
                listener.send(subject, payload, answer);
                heard += 1;
                continue;
            };
            match groups.iter_mut().find(|(name, _)| *name == group) {
                Some((_, members)) => members.push(listener),
                None => groups.push((group, vec![listener])),
            }
        }
        for (_, members) in &groups {
            members[self.turn % members.len()].send(subject, payload, answer);
            heard += 1;
        }
        if !groups.is_empty() {
            self.turn = self.turn.wrapping_add(1);
        }
        heard
    }
}

impl Listener {
    fn send(&self, subject: &Subject, payload: &Bytes, answer: Option<&Answer>) {
        let reply = answer.map(|answer| reply_to(answer.clone()));
        match self.messages.try_send(Message { subject: subject.clone(), payload: payload.clone(), reply }) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => warn!(%subject, pattern = %self.pattern, "a listener is too slow: message dropped"),
        }
    }
}

fn reply_to(answer: Answer) -> Reply {
    Box::new(move |bytes| {
        // Full: somebody else was first. Closed: nobody waits any more.
        let _late = answer.try_send(bytes);
        Box::pin(std::future::ready(Ok::<(), BusError>(())))
    })
}
