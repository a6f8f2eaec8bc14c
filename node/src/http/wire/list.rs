//! A page of a list.

use serde::Serialize;
use utoipa::ToSchema;

use super::conversation::Conversation;
use super::items::WireItem;
use super::response::Response;

/// Members of a page where the request does not say.
pub const LIMIT_DEFAULT: usize = 20;
pub const LIMIT_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct List<T> {
    /// Always `list`.
    #[schema(value_type = String)]
    object: &'static str,
    data: Vec<T>,
    /// None where the page is empty, unless there is more: then it says where to go on.
    #[schema(required)]
    first_id: Option<String>,
    #[schema(required)]
    last_id: Option<String>,
    has_more: bool,
}

/// A member of a list.
pub trait Listed {
    fn id(&self) -> &str;
}

impl Listed for WireItem {
    fn id(&self) -> &str {
        WireItem::id(self)
    }
}

impl Listed for Conversation {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Listed for Response {
    fn id(&self) -> &str {
        &self.id
    }
}

impl<T: Listed> List<T> {
    pub fn new(data: Vec<T>, has_more: bool) -> Self {
        let id = |member: &T| member.id().to_owned();
        Self { object: "list", first_id: data.first().map(id), last_id: data.last().map(id), data, has_more }
    }

    /// A page behind which to go on at another id than its last member's, which may not be there.
    pub fn ending_with(self, id: String) -> Self {
        Self { last_id: Some(id), ..self }
    }

    /// The same of a page that is read backwards.
    pub fn beginning_with(self, id: String) -> Self {
        Self { first_id: Some(id), ..self }
    }

    /// The page out of members of which one more than its limit was asked for.
    pub fn page(mut data: Vec<T>, limit: usize) -> Self {
        let has_more = data.len() > limit;
        data.truncate(limit);
        Self::new(data, has_more)
    }
}
