//! Pushing from HTTP as SSE callers write it: to a user, or to the public account that is mentioned.

use super::{
    Answer, Problem, Request,
    calls::Call,
    ok,
    sends::{BATCH_MAX, field, outcome},
    shape::{Field, Kind, Reader, Shape, Wrong, errors, refused, unfit},
    sockets::{PATIENCE, in_a_word},
    streams,
};
use crate::{
    courier::{Fallback, Receipt, Target, WhenOffline, Whom, Wording},
    frame, json, mention,
};
use registry::{Group, UserName};
use serde_json::{json, value::RawValue};
use std::borrow::Cow;
use tokio::time::Instant;
use tracing::{error, info, warn};

/// The body of `/sse/push`.
pub static PUSH: Shape = Shape {
    fields: &[
        Field { name: "user_id", kind: Kind::Name, required: true, meaning: "who gets it" },
        Field { name: "data", kind: Kind::Any, required: true, meaning: "passed to the sockets untouched" },
        field("event_type", Kind::Text, "what the frame's type says; message unless given"),
    ],
    open: false,
};

struct Push<'a> {
    user: UserName,
    data: &'a RawValue,
    event: String,
}

impl<'a> Push<'a> {
    fn read(mut reader: Reader<'a>) -> Result<Self, Vec<Wrong>> {
        let user = reader.name("user_id", UserName::parse);
        let data = reader.raw("data");
        let event = reader.text("event_type").map_or_else(|| "message".into(), Into::into);
        reader.finish()?;
        user.zip(data).map(|(user, data)| Self { user, data, event }).ok_or_else(Vec::new)
    }

    /// Its user, or the public account that it mentions, with whom it is from.
    fn addressee(&self, request: &Request) -> (UserName, Option<Box<RawValue>>) {
        info!(user_id = self.user.as_str(), request_id = request.request_id, "Processing SSE message");
        let account = mention::mentioned(self.data, &request.gateway.config.public_accounts);
        match account.and_then(|account| UserName::parse(account).ok()) {
            Some(account) => {
                info!(account = account.as_str(), user_id = self.user.as_str(), "Detected @mention of public account");
                (account, mention::original_sender(&self.user))
            }
            None => (self.user.clone(), None),
        }
    }

    async fn go(&self, request: &Request, by: Instant) -> Receipt {
        let (user, sender) = self.addressee(request);
        let sender = sender.as_deref().map(|sender| ("original_sender", sender));
        let frame = frame::sent(&self.event, self.data, sender);
        let target = Target::Group(Group::User(user.clone()));
        let receipt = request.gateway.courier.to_many(&target, None, &frame, by).await;
        request.gateway.metrics.sent(outcome(&receipt));
        match &receipt {
            Receipt { matched: 0, blind: Some(unknown), .. } => {
                warn!(user_id = user.as_str(), "Error sending to user: {unknown}");
            }
            Receipt { unknown, delivered, .. } if *unknown > 0 => {
                error!(
                    user_id = user.as_str(),
                    delivered,
                    unknown,
                    "Error sending to user: an instance that holds {unknown} sockets did not answer"
                );
            }
            Receipt { matched: 0, .. } => {
                warn!(
                    user_id = user.as_str(),
                    "Attempt to send message to disconnected user: no socket of this user is connected"
                );
            }
            Receipt { full, delivered, .. } if *full > 0 => {
                error!(
                    user_id = user.as_str(),
                    delivered, full, "Error sending to user: the queue of {full} sockets is full"
                );
            }
            Receipt { delivered, .. } => info!(user_id = user.as_str(), delivered, "Message sent to user"),
        }
        receipt
    }
}

/// `POST /sse/push`.
pub async fn push(request: Request) -> Answer {
    let reader = Reader::new(&PUSH, &request.body, "").map_err(|fault| refused(&fault))?;
    let push = Push::read(reader).map_err(|wrong| unfit(&wrong))?;
    let receipt = push.go(&request, request.began + PATIENCE).await;
    let (status, message) = match &receipt {
        Receipt { delivered, .. } if *delivered > 0 => ("success", "Message delivered"),
        Receipt { matched: 0, blind: Some(unknown), .. } => return Err(Problem::unknown(unknown)),
        Receipt { matched: 0, .. } => ("partial", "User not connected"),
        Receipt { full, .. } if *full > 0 => ("partial", "User connected, but its queue is full"),
        _ => ("partial", "User connected, but its instance did not confirm in time"),
    };
    let mut body = json!({
        "status": status,
        "message": message,
        "user_id": push.user.as_str(),
        "matched": receipt.matched,
        "delivered": receipt.delivered,
        "unknown": receipt.unknown,
    });
    if let Some(unknown) = &receipt.blind {
        body["registry"] = in_a_word(unknown).into();
    }
    Ok(ok(&body))
}

/// `POST /sse/send`: the same to the user's most recently active socket, and the answer is all that it answers.
pub async fn send(request: Request) -> Answer {
    if request.gateway.courier.calls.are_cut_off() {
        return Err(Problem::draining());
    }
    let body = request.body.clone();
    let reader = Reader::new(&PUSH, &body, "").map_err(|fault| refused(&fault))?;
    let push = Push::read(reader).map_err(|wrong| unfit(&wrong))?;
    let (user, sender) = push.addressee(&request);
    let call = Call {
        whom: Whom::Group(Group::User(user)),
        event: push.event,
        data: Cow::Owned(push.data.to_owned()),
        store: None,
        fallback: Fallback::None,
        when_offline: WhenOffline::Fail,
        budget: streams::ANSWERS_MAX,
        wording: Wording::Message { sender },
    };
    streams::of_message(request, call).await
}

/// `POST /sse/push/batch`.
pub async fn push_batch(request: Request) -> Answer {
    let messages = json::elements(&request.body).map_err(|fault| refused(&fault))?;
    if messages.len() > BATCH_MAX {
        return Err(unfit(&[Wrong { pointer: String::new(), detail: format!("{BATCH_MAX} messages at most") }]));
    }
    let by = request.began + PATIENCE;
    let mut results = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let at = format!("/{index}");
        let reader = Reader::new(&PUSH, message.get().as_bytes(), &at).map_err(|fault| vec![Wrong::of(&fault, &at)]);
        results.push(match reader.and_then(Push::read) {
            Ok(push) => {
                let receipt = push.go(&request, by).await;
                let mut result =
                    json!({ "index": index, "user_id": push.user.as_str(), "success": receipt.delivered > 0 });
                if let Some(unknown) = &receipt.blind {
                    result["registry"] = in_a_word(unknown).into();
                }
                result
            }
            Err(wrong) => json!({ "index": index, "user_id": null, "success": false, "errors": errors(&wrong) }),
        });
        tokio::task::yield_now().await;
    }
    Ok(ok(&json!({ "results": results })))
}
