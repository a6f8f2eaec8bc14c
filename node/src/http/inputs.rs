//! Items that a request sends, next to those that are there: the same id with the same content again is the item
//! that is known, and a reference becomes a copy of what it names.

use std::sync::Arc;

use klatch_actors::Caller;
use klatch_protocol::{Body, ConversationId, Item, State, Status};

use super::edge::Edge;
use super::errors::{ApiError, short};
use super::extract::ItemName;
use super::lookup;
use super::wire::given::{Given, What};

/// One item of a request, in its order.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolved {
    /// To be added. Its ordinal is given when it is.
    New(Item),
    /// In this conversation already.
    Known(Item),
}

/// Where the items are to go.
pub struct Destination {
    /// None where the conversation is yet to be made.
    pub conversation: Option<ConversationId>,
    state: Option<Arc<State>>,
}

impl Destination {
    /// A conversation that does not exist yet.
    pub fn new_one() -> Self {
        Self { conversation: None, state: None }
    }

    /// A conversation whose state is read once an item's id makes it necessary.
    pub fn unread(conversation: ConversationId) -> Self {
        Self { conversation: Some(conversation), state: None }
    }

    /// The item of this name that is there already.
    async fn known(&mut self, edge: &Edge, caller: &Caller, name: &ItemName) -> Result<Option<Item>, ApiError> {
        let Some(conversation) = self.conversation else { return Ok(None) };
        let state = match &self.state {
            Some(state) => state,
            None => self.state.insert(lookup::conversation(edge, conversation, caller).await?),
        };
        lookup::item(edge, conversation, state, name).await
    }
}

pub async fn resolve(
    edge: &Edge,
    caller: &Caller,
    mut destination: Destination,
    given: Vec<Given>,
) -> Result<Vec<Resolved>, ApiError> {
    let mut resolved = Vec::with_capacity(given.len());
    for given in given {
        let name = given.id.as_deref().map(ItemName::from);
        let next = match (given.what, name) {
            (What::Body(body), None) => Some(Resolved::New(new_item(None, body))),
            (What::Body(body), Some(name)) => {
                let known = destination.known(edge, caller, &name).await?;
                own_or_known(&given.param, name, body, known, &resolved)?
            }
            (What::Reference, Some(name)) => {
                refer(edge, caller, &mut destination, &given.param, name, &resolved).await?
            }
            // A reference is not read without an id.
            (What::Reference, None) => None,
        };
        resolved.extend(next);
    }
    Ok(resolved)
}

/// An item that was sent with an id. None where this very request has it already.
fn own_or_known(
    param: &str,
    name: ItemName,
    body: Body,
    known: Option<Item>,
    before: &[Resolved],
) -> Result<Option<Resolved>, ApiError> {
    if let Some(known) = known {
        check_same(param, &known.body, &body)?;
        return Ok(Some(Resolved::Known(known)));
    }
    match name {
        // An id of ours from elsewhere: the item is copied, and has an id of its own here.
        ItemName::Own(_) => Ok(Some(Resolved::New(new_item(None, body)))),
        ItemName::Client(id) => match sent_before(before, &id) {
            Some(sent) => check_same(param, &sent.body, &body).map(|()| None),
            None => Ok(Some(Resolved::New(new_item(Some(id), body)))),
        },
    }
}

async fn refer(
    edge: &Edge,
    caller: &Caller,
    destination: &mut Destination,
    param: &str,
    name: ItemName,
    before: &[Resolved],
) -> Result<Option<Resolved>, ApiError> {
    if let Some(known) = destination.known(edge, caller, &name).await? {
        return Ok(Some(Resolved::Known(known)));
    }
    let (shown, found) = match &name {
        ItemName::Own(id) if destination.conversation != Some(id.conversation) => {
            let reader = edge.handle.reader();
            let found = match reader.conversation(id.conversation, caller).await? {
                Some(state) => lookup::item(edge, id.conversation, &state, &name).await?,
                None => None,
            };
            (id.text("msg_"), found)
        }
        ItemName::Own(id) => (id.text("msg_"), None),
        ItemName::Client(id) if sent_before(before, id).is_some() => return Ok(None),
        ItemName::Client(id) => (short(id), None),
    };
    let missing = || ApiError::not_found(format!("there is no item `{shown}`")).about(format!("{param}.id"));
    Ok(Some(Resolved::New(new_item(None, found.ok_or_else(missing)?.body))))
}

fn sent_before<'a>(before: &'a [Resolved], id: &str) -> Option<&'a Item> {
    before.iter().find_map(|resolved| match resolved {
        Resolved::New(item) if item.client_id.as_deref() == Some(id) => Some(item),
        Resolved::New(_) | Resolved::Known(_) => None,
    })
}

fn check_same(param: &str, known: &Body, sent: &Body) -> Result<(), ApiError> {
    // Clients often leave the status out.
    if with_status(known.clone(), Status::Completed) == with_status(sent.clone(), Status::Completed) {
        return Ok(());
    }
    let message = "there is an item of this id with another content: leave the id out to add this one";
    Err(ApiError::invalid(format!("{param}.id"), message))
}

fn with_status(mut body: Body, wanted: Status) -> Body {
    match &mut body {
        Body::Message { status, .. } | Body::FunctionCall { status, .. } | Body::FunctionCallOutput { status, .. } => {
            *status = wanted;
        }
    }
    body
}

fn new_item(client_id: Option<String>, body: impl Into<Arc<Body>>) -> Item {
    Item { ordinal: 0, client_id, body: body.into() }
}

/// Those that are to be added.
pub fn new_items(resolved: &[Resolved]) -> Vec<Item> {
    let new = |resolved: &Resolved| match resolved {
        Resolved::New(item) => Some(item.clone()),
        Resolved::Known(_) => None,
    };
    resolved.iter().filter_map(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(id: &str, text: &str, before: &[Resolved]) -> Result<Option<Resolved>, ApiError> {
        own_or_known("input[0]", ItemName::from(id), Body::user(text), None, before)
    }

    #[test]
    fn a_client_keeps_its_ids_and_ours_from_elsewhere_are_replaced() {
        let id = |resolved: Option<Resolved>| match resolved {
            Some(Resolved::New(item)) => item.client_id,
            other => panic!("{other:?}"),
        };
        assert_eq!(id(sent("msg_once", "hi", &[]).expect("new")).as_deref(), Some("msg_once"));
        let ours = ConversationId([1; 16]).item(3).text("msg_");
        assert_eq!(id(sent(&ours, "hi", &[]).expect("new")), None);
    }

    #[test]
    fn the_same_id_twice_in_a_request_is_one_item() {
        let before = [sent("x", "hi", &[]).expect("new").expect("new")];
        assert_eq!(sent("x", "hi", &before), Ok(None));
        let error = sent("x", "ho", &before).expect_err("another content");
        assert_eq!(error.param(), Some("input[0].id"));
    }

    #[test]
    fn a_known_item_may_come_without_its_status() {
        let known = with_status(Body::user("hi"), Status::Incomplete);
        assert_eq!(check_same("x", &known, &Body::user("hi")), Ok(()));
    }
}
