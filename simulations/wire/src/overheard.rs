//! What the nodes log, as the world hears it: each warning and error is counted by its words, and shown with the trace.

use std::fmt::{Debug, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::shared::Shared;

/// Runs a world within hearing.
pub fn hearing<T>(shared: Arc<Shared>, world: impl FnOnce() -> T) -> T {
    let of_nodes = Targets::new().with_target("klatch", Level::INFO);
    let subscriber = tracing_subscriber::registry().with(Ear(shared).with_filter(of_nodes));
    tracing::subscriber::with_default(subscriber, world)
}

struct Ear(Arc<Shared>);

#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl<S: Subscriber> Layer<S> for Ear {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        let level = *event.metadata().level();
        self.0.heard(level, &words.message, &words.fields);
    }
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        written.expect("memory takes what it is given");
    }
}
