//! What one turn did, and on which nodes: the boundary to whatever records it.
//!
//! A [`Traced`] travels with a request, within the node as a handle and between nodes as ids. Nothing is recorded of what
//! is said. A request that is part of no trace carries an empty one, which costs nothing.

use std::fmt;
use std::sync::Arc;

use klatch_protocol::trace::TraceContext;

/// Something that is being done. It is over when it is dropped.
pub trait Span: Send + Sync + 'static {
    /// Of what is done within it.
    fn context(&self) -> TraceContext;

    /// Begins something within it.
    fn child(&self, name: &'static str) -> Traced;
}

/// A span, or none.
#[derive(Clone, Default)]
pub struct Traced(Option<Arc<dyn Span>>);

impl Traced {
    pub fn new(span: impl Span) -> Self {
        Self(Some(Arc::new(span)))
    }

    /// Only the ids: they go on to whoever records, and nothing is recorded here.
    pub fn passed_on(context: TraceContext) -> Self {
        Self::new(PassedOn(context))
    }

    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_ref().map(|span| span.context())
    }

    /// Begins something within it, which is over when all its copies are dropped.
    pub fn child(&self, name: &'static str) -> Self {
        self.0.as_ref().map(|span| span.child(name)).unwrap_or_default()
    }

    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.context().map(|context| context.to_string()).fmt(f)
    }
}

impl PartialEq for Traced {
    fn eq(&self, other: &Self) -> bool {
        self.context() == other.context()
    }
}

struct PassedOn(TraceContext);

impl Span for PassedOn {
    fn context(&self) -> TraceContext {
        self.0
    }

    fn child(&self, _: &'static str) -> Traced {
        Traced::passed_on(self.0)
    }
}

/// Goes on with a trace that began on another node.
pub trait Tracer: Send + Sync + 'static {
    fn remote(&self, context: TraceContext) -> Traced;
}

/// Records nothing.
pub struct PassOn;

impl Tracer for PassOn {
    fn remote(&self, context: TraceContext) -> Traced {
        Traced::passed_on(context)
    }
}

tokio::task_local! {
    static CURRENT: Traced;
}

/// Requests that the future makes of conversations are done within `traced`.
pub async fn within<F: Future>(traced: Traced, future: F) -> F::Output {
    CURRENT.scope(traced, future).await
}

/// Of the request that is being answered; none where there is none.
pub fn current() -> Traced {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}
