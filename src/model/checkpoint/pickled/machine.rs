//! A machine for the pickles that `torch.save` writes (protocols 2 to 4), which makes data and calls nothing.
//!
//! Opcodes are those of Python's `pickletools`. Each makes one thing at most, and there is a limit on them, so a short
//! program cannot make much.

use std::collections::HashMap;
use std::str;

use super::things::{Arena, Thing, Value};

/// Most opcodes. A tensor takes some 40.
const MAX_STEPS: usize = 1_000_000;

/// What a program leaves when it has ended, and in what. Errors are texts.
pub(super) fn run(program: &[u8]) -> Result<(Arena, Value), String> {
    let mut machine = Machine {
        program,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        things: Arena::default(),
    };
    for _ in 0..MAX_STEPS {
        if machine.step()? {
            let result = machine.pop()?;
            return Ok((machine.things, result));
        }
    }
    Err(format!("it has more than {MAX_STEPS} opcodes"))
}

struct Machine<'a> {
    program: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    things: Arena,
}

impl Machine<'_> {
    /// One opcode; whether it was the last.
    fn step(&mut self) -> Result<bool, String> {
        match self.byte()? {
            // PROTO, FRAME
            0x80 => drop(self.byte()?),
            0x95 => drop(self.bytes(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'.' => return Ok(true),
            b'0' => drop(self.pop()?),
            b'2' => {
                let top = *self.stack.last().ok_or_else(underflow)?;
                self.stack.push(top);
            }
            // NONE, NEWTRUE, NEWFALSE, BINFLOAT
            b'N' | 0x88 | 0x89 => self.stack.push(Value::Nothing),
            b'G' => {
                self.bytes(8)?;
                self.stack.push(Value::Nothing);
            }
            b'J' => {
                let integer = i32::from_le_bytes(self.array()?);
                self.integer(integer.into());
            }
            b'K' => {
                let integer = self.byte()?;
                self.integer(integer.into());
            }
            b'M' => {
                let integer = u16::from_le_bytes(self.array()?);
                self.integer(integer.into());
            }
            0x8a => self.long()?,
            // BINUNICODE, SHORT_BINUNICODE, BINSTRING, SHORT_BINSTRING
            b'X' | b'T' => {
                let length = u32::from_le_bytes(self.array()?);
                self.text(length as usize)?;
            }
            0x8c | b'U' => {
                let length = self.byte()?;
                self.text(length.into())?;
            }
            b')' => self.push(Thing::Tuple(Vec::new())),
            count @ 0x85..=0x87 => {
                let count = usize::from(count - 0x84);
                let from = self.stack.len().checked_sub(count).ok_or_else(underflow)?;
                let parts = self.stack.split_off(from);
                self.push(Thing::Tuple(parts));
            }
            b't' => {
                let parts = self.marked()?;
                self.push(Thing::Tuple(parts));
            }
            b']' => self.push(Thing::List(Vec::new())),
            b'l' => {
                let parts = self.marked()?;
                self.push(Thing::List(parts));
            }
            b'}' => self.push(Thing::Dictionary(Vec::new())),
            // APPEND, APPENDS, SETITEM, SETITEMS
            b'a' => {
                let value = self.pop()?;
                self.append(vec![value])?;
            }
            b'e' => {
                let values = self.marked()?;
                self.append(values)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let values = self.marked()?;
                self.set(&values)?;
            }
            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' => {
                let number = self.byte()?;
                self.remember(number.into())?;
            }
            b'r' => {
                let number = u32::from_le_bytes(self.array()?);
                self.remember(number)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            // BINGET, LONG_BINGET
            b'h' => {
                let number = self.byte()?;
                self.recall(number.into())?;
            }
            b'j' => {
                let number = u32::from_le_bytes(self.array()?);
                self.recall(number)?;
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Arena::known(&module, &name)?);
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Some(module), Some(name)) = (self.things.text(module), self.things.text(name)) else {
                    return Err("a name is no text".to_owned());
                };
                let known = Arena::known(module, name)?;
                self.push(known);
            }
            b'R' => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let made = self.things.called(callable, arguments)?;
                self.push(made);
            }
            // BUILD: attributes, such as the versions of a state dictionary's modules, are nothing that is needed.
            b'b' => drop(self.pop()?),
            // BINPERSID
            b'Q' => {
                let id = self.pop()?;
                let storage = self.things.persistent(id)?;
                self.push(storage);
            }
            other => return Err(format!("opcode {other:#04x} is none that a file of weights needs")),
        }
        Ok(false)
    }

    fn push(&mut self, thing: Thing) {
        let value = self.things.add(thing);
        self.stack.push(value);
    }

    fn integer(&mut self, integer: i64) {
        self.stack.push(Value::Integer(integer));
    }

    fn pop(&mut self) -> Result<Value, String> {
        // What is below a mark belongs to somebody else.
        if self.marks.last().is_some_and(|mark| *mark >= self.stack.len()) {
            return Err(underflow());
        }
        self.stack.pop().ok_or_else(underflow)
    }

    /// All above the last mark.
    fn marked(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len()).ok_or_else(underflow)?;
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, values: Vec<Value>) -> Result<(), String> {
        match self.top()? {
            Thing::List(list) => list.extend(values),
            _ => return Err("it appends to what is no list".to_owned()),
        }
        Ok(())
    }

    fn set(&mut self, values: &[Value]) -> Result<(), String> {
        let (pairs, []) = values.as_chunks() else { return Err("a key has no value".to_owned()) };
        match self.top()? {
            Thing::Dictionary(items) => items.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            _ => return Err("it sets items of what is no dictionary".to_owned()),
        }
        Ok(())
    }

    /// What is on top of the stack, and stays there.
    fn top(&mut self) -> Result<&mut Thing, String> {
        self.stack.last().and_then(|top| self.things.get_mut(*top)).ok_or_else(underflow)
    }

    fn remember(&mut self, number: u32) -> Result<(), String> {
        let top = *self.stack.last().ok_or_else(underflow)?;
        self.memo.insert(number, top);
        Ok(())
    }

    fn recall(&mut self, number: u32) -> Result<(), String> {
        let value = self.memo.get(&number).ok_or("it recalls what it never put away")?;
        self.stack.push(*value);
        Ok(())
    }

    fn text(&mut self, length: usize) -> Result<(), String> {
        let text = str::from_utf8(self.bytes(length)?).map_err(|_| "a text is not UTF-8")?.to_owned();
        self.push(Thing::Text(text));
        Ok(())
    }

    /// LONG1: little-endian, of as many bytes as its first says. Larger ones than 64 bits are no sizes.
    fn long(&mut self) -> Result<(), String> {
        let length = self.byte()?;
        let bytes = self.bytes(length.into())?;
        let value = match bytes.len() {
            0 => Value::Integer(0),
            length @ 1..=8 => {
                let mut number = [if bytes[length - 1] >= 0x80 { 0xff } else { 0 }; 8];
                number[..length].copy_from_slice(bytes);
                Value::Integer(i64::from_le_bytes(number))
            }
            _ => Value::Nothing,
        };
        self.stack.push(value);
        Ok(())
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.program[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or_else(cut)?;
        let line = str::from_utf8(&rest[..length]).map_err(|_| "a name is not UTF-8")?.to_owned();
        self.at += length + 1;
        Ok(line)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.bytes(N)?.try_into().map_err(|_| cut())
    }

    fn bytes(&mut self, count: usize) -> Result<&[u8], String> {
        let end = self.at.checked_add(count).ok_or_else(cut)?;
        let bytes = self.program.get(self.at..end).ok_or_else(cut)?;
        self.at = end;
        Ok(bytes)
    }
}

fn underflow() -> String {
    "it takes what is not on its stack".to_owned()
}

fn cut() -> String {
    "it ends in the middle".to_owned()
}
