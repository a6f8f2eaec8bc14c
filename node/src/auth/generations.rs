//! A map that forgets: what was used lately stays, and it never holds more than twice its half. Looking up, adding and
//! forgetting take constant time, so it stands in the way of every request.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

pub struct Generations<K, V> {
    young: HashMap<K, V>,
    /// Dropped as a whole when the young are `half` again.
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash, V> Generations<K, V> {
    pub fn new(max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: max / 2 }
    }

    /// What is found counts as used.
    pub fn get<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_holds_more_than_its_maximum() {
        let mut map = Generations::new(8);
        for n in 0..100 {
            map.insert(n, n);
            assert!(map.young.len() + map.old.len() <= 8);
        }
        assert_eq!(map.get(&99), Some(&mut 99));
        assert_eq!(map.get(&0), None);
    }

    #[test]
    fn what_is_used_stays() {
        let mut map = Generations::new(8);
        map.insert("used", 1);
        for n in 0..100 {
            map.insert(Box::leak(format!("{n}").into_boxed_str()), 0);
            assert_eq!(map.get("used"), Some(&mut 1), "after {n}");
        }
    }
}
