//! Scripts: the real ones, run by the Lua 5.1 that Redis has, with `redis.call` on the twin's data.

use std::cell::RefCell;

use mlua::{Lua, Value, Variadic};

use super::commands;
use super::data::{Bytes, Data, Reply};

/// Runs a script on the data. What it wrote before it failed stays written, as in Redis.
pub fn run(data: &mut Data, source: &str, keys: &[Bytes], arguments: &[Bytes]) -> Reply {
    match answer(data, source, keys, arguments) {
        Ok(reply) => reply,
        Err(error) => Reply::Error(format!("ERR {error}").replace(['\r', '\n'], " ")),
    }
}

fn answer(data: &mut Data, source: &str, keys: &[Bytes], arguments: &[Bytes]) -> mlua::Result<Reply> {
    let (lua, data) = (Lua::new(), RefCell::new(data));
    let texts = |texts: &[Bytes]| {
        let made: mlua::Result<Vec<_>> = texts.iter().map(|text| lua.create_string(text)).collect();
        lua.create_sequence_from(made?)
    };
    lua.globals().set("KEYS", texts(keys)?)?;
    lua.globals().set("ARGV", texts(arguments)?)?;
    lua.scope(|scope| {
        let call = scope.create_function(|lua, given: Variadic<Value>| {
            let command: Vec<Bytes> = given.iter().map(argument).collect::<mlua::Result<_>>()?;
            to_lua(lua, commands::run(&mut data.borrow_mut(), &command))
        })?;
        let redis = lua.create_table()?;
        redis.set("call", call)?;
        redis.set("error_reply", lua.create_function(|lua, said: mlua::LuaString| of_one(lua, "err", said))?)?;
        lua.globals().set("redis", redis)?;
        from_lua(lua.load(source).eval::<Value>()?)
    })
}

fn argument(value: &Value) -> mlua::Result<Bytes> {
    match value {
        Value::String(text) => Ok(text.as_bytes().to_vec()),
        Value::Integer(number) => Ok(number.to_string().into_bytes()),
        Value::Number(number) => Ok(number.to_string().into_bytes()),
        _ => Err(mlua::Error::runtime("Lua redis lib command arguments must be strings or integers")),
    }
}

fn of_one(lua: &Lua, name: &str, said: mlua::LuaString) -> mlua::Result<Value> {
    let table = lua.create_table()?;
    table.set(name, said)?;
    Ok(Value::Table(table))
}

fn to_lua(lua: &Lua, reply: Reply) -> mlua::Result<Value> {
    match reply {
        Reply::Status(said) => of_one(lua, "ok", lua.create_string(said)?),
        Reply::Error(said) => Err(mlua::Error::runtime(said)),
        Reply::Int(number) => Ok(Value::Number(number as f64)),
        Reply::Bulk(bytes) => Ok(Value::String(lua.create_string(bytes)?)),
        Reply::Nil => Ok(Value::Boolean(false)),
        Reply::Array(replies) => {
            let table = lua.create_table()?;
            for reply in replies {
                table.push(to_lua(lua, reply)?)?;
            }
            Ok(Value::Table(table))
        }
    }
}

fn from_lua(value: Value) -> mlua::Result<Reply> {
    match value {
        Value::String(text) => Ok(Reply::Bulk(text.as_bytes().to_vec())),
        Value::Integer(number) => Ok(Reply::Int(number)),
        Value::Number(number) => Ok(Reply::Int(number as i64)),
        Value::Boolean(true) => Ok(Reply::Int(1)),
        Value::Boolean(false) | Value::Nil => Ok(Reply::Nil),
        Value::Table(table) => {
            if let Some(said) = table.get::<Option<mlua::LuaString>>("err")? {
                return Ok(Reply::Error(said.to_string_lossy()));
            }
            if let Some(said) = table.get::<Option<mlua::LuaString>>("ok")? {
                return Ok(Reply::Status(said.to_string_lossy()));
            }
            let replies: mlua::Result<Vec<Reply>> =
                table.sequence_values::<Value>().map(|value| from_lua(value?)).collect();
            Ok(Reply::Array(replies?))
        }
        _ => Err(mlua::Error::runtime("a script answered with what is no reply")),
    }
}
