//! [`Views`] on Redis: a number, a hash of rows and a hash of counters under one hash tag, each call one script.
//!
//! What changes the table waits for the replicas, as everything durable does; a heartbeat does not, since it is no loss.

use std::collections::BTreeMap;

use ::redis::{Cmd, Value};
use klatch_actors::membership::views::{Beat, Still, Viewed, Views, ViewsError};
use klatch_actors::store::StoreError;
use klatch_protocol::view::{Row, ViewTable};

use super::job::{Kind, Reply};
use super::keys::damaged;
use super::scripts::Script;
use super::{RedisStore, read};

const INCARNATION_DIGITS: usize = 16;

type Done<T> = Result<T, StoreError>;

impl RedisStore {
    fn view_call(&self, script: Script, name: &str, incarnation: u64) -> Cmd {
        let mut call = self.view_script(script);
        call.arg(name).arg(digits(incarnation));
        call
    }

    fn view_script(&self, script: Script) -> Cmd {
        script.call(&["number", "rows", "counters"].map(|part| self.keys.view(part)))
    }

    async fn view_run(&self, script: Script, call: Cmd) -> Done<Reply> {
        let durable = script != Script::ViewBeat;
        self.lane(&self.keys.view("rows"))?.submit(call, Kind::Script, durable).await
    }

    async fn view_whether(&self, script: Script, call: Cmd) -> Done<bool> {
        read::whether(&self.view_run(script, call).await?.value)
    }
}

impl Views for RedisStore {
    fn join(&self, name: String, row: Row) -> Viewed<'_, bool> {
        Box::pin(async move {
            let mut call = self.view_call(Script::ViewJoin, &name, row.incarnation);
            call.arg(written(&row));
            self.view_whether(Script::ViewJoin, call).await.map_err(failed)
        })
    }

    fn beat(&self, name: String, incarnation: u64) -> Viewed<'_, Option<Beat>> {
        Box::pin(async move {
            let call = self.view_call(Script::ViewBeat, &name, incarnation);
            let reply = self.view_run(Script::ViewBeat, call).await.map_err(failed)?;
            beat(reply).map_err(failed)
        })
    }

    fn set(&self, name: String, row: Row) -> Viewed<'_, bool> {
        Box::pin(async move {
            let mut call = self.view_call(Script::ViewSet, &name, row.incarnation);
            call.arg(written(&row));
            self.view_whether(Script::ViewSet, call).await.map_err(failed)
        })
    }

    fn bury(&self, still: Vec<Still>, number: u64) -> Viewed<'_, bool> {
        Box::pin(async move {
            let mut call = self.view_script(Script::ViewBury);
            call.arg(number);
            for Still { name, incarnation, counter } in still {
                call.arg(name).arg(digits(incarnation)).arg(counter);
            }
            self.view_whether(Script::ViewBury, call).await.map_err(failed)
        })
    }

    fn leave(&self, name: String, incarnation: u64) -> Viewed<'_, ()> {
        Box::pin(async move {
            let call = self.view_call(Script::ViewLeave, &name, incarnation);
            self.view_run(Script::ViewLeave, call).await.map(drop).map_err(failed)
        })
    }

    fn read(&self) -> Viewed<'_, ViewTable> {
        Box::pin(async move {
            let call = self.view_script(Script::ViewRead);
            let reply = self.view_run(Script::ViewRead, call).await.map_err(failed)?;
            table(reply.value).map_err(failed)
        })
    }
}

fn failed(error: StoreError) -> ViewsError {
    ViewsError(error.to_string())
}

/// Of equal length, so that texts compare as the numbers do.
fn digits(incarnation: u64) -> String {
    format!("{incarnation:0width$x}", width = INCARNATION_DIGITS)
}

fn written(row: &Row) -> String {
    serde_json::to_string(row).expect("a row's keys are texts")
}

fn beat(reply: Reply) -> Done<Option<Beat>> {
    if reply.value == Value::Nil {
        return Ok(None);
    }
    let (number, counters) = number_and_pairs(reply.value)?;
    let counters = counters.into_iter().map(|(name, counter)| Ok((name, decimal(&counter)?)));
    Ok(Some(Beat { number, generation: reply.generation, counters: counters.collect::<Done<_>>()? }))
}

fn table(value: Value) -> Done<ViewTable> {
    let (number, pairs) = number_and_pairs(value)?;
    let row = |text: &str| {
        let json = text.get(INCARNATION_DIGITS..)?;
        serde_json::from_str::<Row>(json).ok()
    };
    let rows = pairs.into_iter().map(|(name, text)| {
        let row = row(&text).ok_or_else(|| damaged("a row of the view cannot be read"))?;
        Ok((name, row))
    });
    Ok(ViewTable { number, rows: rows.collect::<Done<BTreeMap<_, _>>>()? })
}

fn number_and_pairs(value: Value) -> Done<(u64, Vec<(String, String)>)> {
    let Ok([number, pairs]) = <[Value; 2]>::try_from(read::list(value)?) else {
        return Err(damaged("the view has not two parts"));
    };
    let texts = read::list(pairs)?.into_iter().map(text).collect::<Done<Vec<_>>>()?;
    let (pairs, rest) = texts.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(damaged("a name of the view has no row"));
    }
    Ok((decimal(&text(number)?)?, pairs.iter().cloned().map(|[name, value]| (name, value)).collect()))
}

fn text(value: Value) -> Done<String> {
    String::from_utf8(read::bytes(value)?).map_err(|_| damaged("a part of the view is no text"))
}

fn decimal(text: &str) -> Done<u64> {
    text.parse().map_err(|_| damaged("a number of the view is none"))
}
