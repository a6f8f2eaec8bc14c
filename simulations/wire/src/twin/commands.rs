//! The commands on data: each one's arguments, what it does, and what it answers, in the words of Redis where the client
//! reads them.

use std::ops::Bound;

use super::data::{Added, Bytes, Data, Kept, Reply, StreamId};

type Answer = Result<Reply, Reply>;

/// Whether a command changes something, and so is refused by a replica.
pub fn writes(name: &str) -> bool {
    matches!(
        name,
        "SET" | "INCR" | "HSET" | "HDEL" | "HINCRBY" | "ZADD" | "ZREM" | "ZREMRANGEBYLEX" | "XADD" | "XTRIM" | "UNLINK"
    )
}

/// The name of a command, as all are compared.
pub fn name_of(command: &[Bytes]) -> String {
    command.first().map(|name| String::from_utf8_lossy(name).to_uppercase()).unwrap_or_default()
}

/// Runs one command on the data. What it wrote is noted.
pub fn run(data: &mut Data, command: &[Bytes]) -> Reply {
    let name = name_of(command);
    let Some((key, rest)) = command.get(1..).and_then(<[Bytes]>::split_first) else {
        return Reply::Error(format!("ERR wrong number of arguments for '{name}'"));
    };
    let answer = match name.as_str() {
        "GET" => data.text(key).map(|text| text.map_or(Reply::Nil, |text| Reply::Bulk(text.clone()))),
        "SET" => set(data, key, rest),
        "INCR" => incr(data, key),
        "HGET" => hget(data, key, rest),
        "HGETALL" => hgetall(data, key),
        "HSET" => hset(data, key, rest),
        "HDEL" => hdel(data, key, rest),
        "HINCRBY" => hincrby(data, key, rest),
        "ZADD" => zadd(data, key, rest),
        "ZREM" => zrem(data, key, rest),
        "ZRANGEBYLEX" => by_lex(data, key, rest, false),
        "ZREVRANGEBYLEX" => by_lex(data, key, rest, true),
        "ZREMRANGEBYLEX" => remove_by_lex(data, key, rest),
        "XADD" => xadd(data, key, rest),
        "XRANGE" => xrange(data, key, rest, false),
        "XREVRANGE" => xrange(data, key, rest, true),
        "XTRIM" => xtrim(data, key, rest),
        "TYPE" => Ok(Reply::Status(data.keys.get(key).map_or("none", Kept::kind).to_owned())),
        "EXISTS" => Ok(Reply::Int(i64::from(data.keys.contains_key(key)))),
        "UNLINK" => Ok(Reply::Int(i64::from(data.keys.remove(key).is_some()))),
        _ => Err(Reply::Error(format!("ERR unknown command '{name}', which this twin was not taught"))),
    };
    data.sweep(key);
    match answer {
        Ok(reply) => {
            // Nothing was made where NOMKSTREAM found no log.
            if writes(&name) && reply != Reply::Nil {
                data.written.push(command.to_vec());
            }
            reply
        }
        Err(error) => error,
    }
}

fn syntax() -> Reply {
    Reply::error("ERR syntax error")
}

fn text<T: std::str::FromStr>(bytes: Option<&Bytes>) -> Result<T, Reply> {
    let read = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).and_then(|text| text.parse().ok());
    read.ok_or_else(|| Reply::error("ERR value is not an integer or out of range"))
}

fn set(data: &mut Data, key: &[u8], rest: &[Bytes]) -> Answer {
    let [value] = rest else { return Err(syntax()) };
    data.keys.insert(key.to_vec(), Kept::Text(value.clone()));
    Ok(Reply::ok())
}

fn incr(data: &mut Data, key: &[u8]) -> Answer {
    let text_there = data.text_mut(key)?;
    let before: i64 = if text_there.is_empty() { 0 } else { text(Some(text_there))? };
    *text_there = (before + 1).to_string().into_bytes();
    Ok(Reply::Int(before + 1))
}

fn hget(data: &Data, key: &[u8], rest: &[Bytes]) -> Answer {
    let [field] = rest else { return Err(syntax()) };
    let value = data.hash(key)?.and_then(|hash| hash.get(field));
    Ok(value.map_or(Reply::Nil, |value| Reply::Bulk(value.clone())))
}

fn hgetall(data: &Data, key: &[u8]) -> Answer {
    let pairs = data.hash(key)?.into_iter().flatten();
    Ok(Reply::Array(
        pairs.flat_map(|(field, value)| [Reply::Bulk(field.clone()), Reply::Bulk(value.clone())]).collect(),
    ))
}

fn hset(data: &mut Data, key: &[u8], rest: &[Bytes]) -> Answer {
    if rest.is_empty() || !rest.len().is_multiple_of(2) {
        return Err(Reply::error("ERR wrong number of arguments for 'hset' command"));
    }
    let hash = data.hash_mut(key)?;
    let is_new = |pair: &[Bytes]| i64::from(hash.insert(pair[0].clone(), pair[1].clone()).is_none());
    Ok(Reply::Int(rest.chunks(2).map(is_new).sum()))
}

fn hdel(data: &mut Data, key: &[u8], rest: &[Bytes]) -> Answer {
    let hash = data.hash_mut(key)?;
    Ok(Reply::Int(rest.iter().map(|field| i64::from(hash.remove(field).is_some())).sum()))
}

fn hincrby(data: &mut Data, key: &[u8], rest: &[Bytes]) -> Answer {
    let [field, by] = rest else { return Err(syntax()) };
    let by: i64 = text(Some(by))?;
    let hash = data.hash_mut(key)?;
    let before: i64 = hash.get(field).map_or(Ok(0), |value| text(Some(value)))?;
    hash.insert(field.clone(), (before + by).to_string().into_bytes());
    Ok(Reply::Int(before + by))
}

fn zadd(data: &mut Data, key: &[u8], rest: &[Bytes]) -> Answer {
    if rest.is_empty() || !rest.len().is_multiple_of(2) || rest.chunks(2).any(|pair| pair[0] != b"0") {
        return Err(Reply::error("ERR this twin has scores of 0 only"));
    }
    let members = data.sorted_mut(key)?;
    Ok(Reply::Int(rest.chunks(2).map(|pair| i64::from(members.insert(pair[1].clone()))).sum()))
}

fn zrem(data: &mut Data, key: &[u8], rest: &[Bytes]) -> Answer {
    let members = data.sorted_mut(key)?;
    Ok(Reply::Int(rest.iter().map(|member| i64::from(members.remove(member))).sum()))
}

/// `[` or `(` before, or an end.
fn bound(given: &[u8]) -> Result<Bound<Bytes>, Reply> {
    match given {
        b"-" | b"+" => Ok(Bound::Unbounded),
        [b'[', rest @ ..] => Ok(Bound::Included(rest.to_vec())),
        [b'(', rest @ ..] => Ok(Bound::Excluded(rest.to_vec())),
        _ => Err(Reply::error("ERR min or max not valid string range item")),
    }
}

/// Members between the bounds, in their order; Redis finds nothing where the bounds are the wrong way round.
fn between(data: &Data, key: &[u8], low: &[u8], high: &[u8]) -> Result<Vec<Bytes>, Reply> {
    let (from, to) = (bound(low)?, bound(high)?);
    let members = data.sorted(key)?.into_iter().flatten();
    if low == b"+" || high == b"-" {
        return Ok(Vec::new());
    }
    let is_above = |member: &Bytes| match &from {
        Bound::Included(low) => member >= low,
        Bound::Excluded(low) => member > low,
        Bound::Unbounded => true,
    };
    let is_below = |member: &Bytes| match &to {
        Bound::Included(high) => member <= high,
        Bound::Excluded(high) => member < high,
        Bound::Unbounded => true,
    };
    Ok(members.filter(|member| is_above(member) && is_below(member)).cloned().collect())
}

fn by_lex(data: &Data, key: &[u8], rest: &[Bytes], is_reversed: bool) -> Answer {
    let (Some(first), Some(second)) = (rest.first(), rest.get(1)) else { return Err(syntax()) };
    let (low, high) = if is_reversed { (second, first) } else { (first, second) };
    let mut found = between(data, key, low, high)?;
    if is_reversed {
        found.reverse();
    }
    if let Some(limit) = rest.get(2) {
        if !limit.eq_ignore_ascii_case(b"LIMIT") {
            return Err(syntax());
        }
        let (skip, count): (usize, i64) = (text(rest.get(3))?, text(rest.get(4))?);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        found = found.into_iter().skip(skip).take(count).collect();
    }
    Ok(Reply::Array(found.into_iter().map(Reply::Bulk).collect()))
}

fn remove_by_lex(data: &mut Data, key: &[u8], rest: &[Bytes]) -> Answer {
    let [low, high] = rest else { return Err(syntax()) };
    let found = between(data, key, low, high)?;
    let members = data.sorted_mut(key)?;
    Ok(Reply::Int(found.iter().map(|member| i64::from(members.remove(member))).sum()))
}

fn id(bytes: &[u8]) -> Result<StreamId, Reply> {
    let read = || {
        let (first, second) = std::str::from_utf8(bytes).ok()?.split_once('-')?;
        Some((first.parse().ok()?, second.parse().ok()?))
    };
    read().ok_or_else(|| Reply::error("ERR Invalid stream ID specified as stream command argument"))
}

fn xadd(data: &mut Data, key: &[u8], rest: &[Bytes]) -> Answer {
    let (rest, may_make) = match rest.split_first() {
        Some((first, rest)) if first.eq_ignore_ascii_case(b"NOMKSTREAM") => (rest, false),
        _ => (rest, true),
    };
    let (given, fields) = rest.split_first().ok_or_else(syntax)?;
    let entry = id(given)?;
    if entry == (0, 0) {
        return Err(Reply::error("ERR The ID specified in XADD must be greater than 0-0"));
    }
    let is_there = data.stream(key)?.is_some();
    if !is_there && !may_make {
        return Ok(Reply::Nil);
    }
    if data.stream(key)?.is_some_and(|stream| entry <= stream.last) {
        let said = "ERR The ID specified in XADD is equal or smaller than the target stream top item";
        return Err(Reply::error(said));
    }
    let stream = data.stream_mut(key)?;
    let before = stream.entries.last_key_value().map(|(id, fields)| (*id, fields.clone()));
    stream.last = entry;
    stream.entries.insert(entry, fields.to_vec());
    data.added.push(Added { key: key.to_vec(), before, id: entry, fields: fields.to_vec() });
    Ok(Reply::Bulk(given.clone()))
}

fn xrange(data: &Data, key: &[u8], rest: &[Bytes], is_reversed: bool) -> Answer {
    let ends: [&[u8]; 2] = if is_reversed { [b"+", b"-"] } else { [b"-", b"+"] };
    if rest.len() < 2 || rest[0] != ends[0] || rest[1] != ends[1] {
        return Err(Reply::error("ERR this twin reads whole streams only"));
    }
    let count = match rest.get(2) {
        Some(word) if word.eq_ignore_ascii_case(b"COUNT") => text(rest.get(3))?,
        Some(_) => return Err(syntax()),
        None => usize::MAX,
    };
    let shown = |((first, second), fields): (&StreamId, &Vec<Bytes>)| {
        let id = format!("{first}-{second}").into_bytes();
        let fields = fields.iter().cloned().map(Reply::Bulk).collect();
        Reply::Array(vec![Reply::Bulk(id), Reply::Array(fields)])
    };
    let Some(stream) = data.stream(key)? else { return Ok(Reply::Array(Vec::new())) };
    let entries = stream.entries.iter();
    Ok(Reply::Array(match is_reversed {
        true => entries.rev().take(count).map(shown).collect(),
        false => entries.take(count).map(shown).collect(),
    }))
}

fn xtrim(data: &mut Data, key: &[u8], rest: &[Bytes]) -> Answer {
    let [how, exactly, from] = rest else { return Err(syntax()) };
    if !how.eq_ignore_ascii_case(b"MINID") || exactly != b"=" {
        return Err(syntax());
    }
    let from = id(from)?;
    if data.stream(key)?.is_none() {
        return Ok(Reply::Int(0));
    }
    let stream = data.stream_mut(key)?;
    let kept = stream.entries.split_off(&from);
    let trimmed = std::mem::replace(&mut stream.entries, kept);
    Ok(Reply::Int(trimmed.len() as i64))
}
