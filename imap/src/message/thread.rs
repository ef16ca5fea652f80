//! THREAD (RFC 5256) and THREADID (RFC 8474).

use std::borrow::Cow;
use std::collections::HashMap;

use crate::grammar::put_number;

use super::summary::Summary;
use super::{header, limits, search};

/// A text that is only ever compared with others: 16 bytes of its BLAKE3 hash, however long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label([u8; 16]);

impl Label {
    /// The label of a text.
    pub fn new(text: &[u8]) -> Label {
        let mut label = [0; 16];
        label.copy_from_slice(&blake3::hash(text).as_bytes()[..16]);
        Label(label)
    }
}

/// A message to be threaded. Rows come in the order of their numbers. A row has some hundred bytes, and 16 for each
/// reference, of which [`limits::REFERENCES`] count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadRow {
    /// Its sequence number or UID.
    pub number: u32,
    /// When it was sent; its internal date where it does not say.
    pub date: i64,
    /// Its base subject, folded, unless that is empty.
    pub subject: Option<Label>,
    /// Whether the subject is one of a reply or forward.
    pub is_reply: bool,
    /// Its Message-ID, if it has a valid one.
    pub id: Option<Label>,
    /// The messages it refers to, oldest first.
    pub references: Box<[Label]>,
}

impl ThreadRow {
    /// The row of a message.
    pub fn new(number: u32, internal_date: i64, summary: &Summary<'_>) -> ThreadRow {
        let mut subject = Vec::new();
        search::fold(summary.base_subject(), &mut subject);
        ThreadRow {
            number,
            date: summary.sent().map_or(internal_date, |sent| sent.seconds),
            subject: (!subject.is_empty()).then(|| Label::new(&subject)),
            is_reply: summary.is_reply(),
            id: own_id(summary).map(|id| Label::new(&id)),
            references: references(summary),
        }
    }
}

impl Summary<'_> {
    /// THREADID (RFC 8474): the same for the messages of one conversation, as far as a message alone can tell. It is
    /// a hash of the conversation's first Message-ID: the first reference, else the message answered to, else the
    /// message's own. So it needs no index, never changes, and is equal on every replica. A client that shortens its
    /// list of references at the front splits a conversation. Nothing if there is no id at all; the caller then
    /// names the message's body.
    pub fn thread_id(&self) -> Option<String> {
        let root = first_reference(self).or_else(|| own_id(self))?;
        let hash = blake3::hash(&root);
        Some(format!("T{}", data_encoding::BASE64URL_NOPAD.encode(&hash.as_bytes()[..16])))
    }
}

fn own_id<'a>(summary: &Summary<'a>) -> Option<Cow<'a, [u8]>> {
    ids(header::first(summary.header(), "message-id")?.value).next()
}

fn first_reference<'a>(summary: &Summary<'a>) -> Option<Cow<'a, [u8]>> {
    let of = |name| header::first(summary.header(), name).and_then(|field| ids(field.value).next());
    of("references").or_else(|| of("in-reply-to"))
}

fn references(summary: &Summary<'_>) -> Box<[Label]> {
    let of = |name| header::first(summary.header(), name).into_iter().flat_map(|field| ids(field.value));
    let mut found: Vec<Label> = of("references").map(|id| Label::new(&id)).collect();
    if found.is_empty() {
        // Only the first of In-Reply-To: others may be addresses (RFC 5256, section 3).
        found.extend(of("in-reply-to").next().map(|id| Label::new(&id)));
    }
    let surplus = found.len().saturating_sub(limits::REFERENCES);
    found.drain(..surplus);
    found.into()
}

/// The message ids of a field, without angles and quoting. Blanks inside are where a long field was broken.
fn ids(value: &[u8]) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let mut rest = value;
    std::iter::from_fn(move || {
        loop {
            rest = &rest[memchr::memchr(b'<', rest)? + 1..];
            let (id, after) = rest.split_at(memchr::memchr2(b'<', b'>', rest)?);
            rest = after;
            if rest.starts_with(b">") && memchr::memchr(b'@', id).is_some() {
                return Some(normal(id));
            }
        }
    })
}

fn normal(id: &[u8]) -> Cow<'_, [u8]> {
    let is_kept = |byte: &u8| !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b'\\');
    match id.iter().all(is_kept) {
        true => Cow::Borrowed(id),
        false => Cow::Owned(id.iter().copied().filter(is_kept).collect()),
    }
}

/// Threads: trees of messages, and of dummies for messages that are not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forest {
    nodes: Vec<Node>,
    roots: Vec<usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// Index of its row; a dummy has none.
    row: Option<usize>,
    number: u32,
    parent: Option<usize>,
    children: Vec<usize>,
}

impl Forest {
    /// Writes the thread lists of a THREAD response. Does not recurse: conversations can be long.
    pub fn put(&self, out: &mut Vec<u8>) {
        enum Step {
            Open(usize),
            Node(usize),
            Close,
        }
        let mut steps: Vec<Step> = self.roots.iter().rev().map(|root| Step::Open(*root)).collect();
        while let Some(step) = steps.pop() {
            match step {
                Step::Close => out.push(b')'),
                Step::Open(node) => {
                    out.push(b'(');
                    steps.extend([Step::Close, Step::Node(node)]);
                }
                Step::Node(node) => {
                    let Node { row, number: own, children, .. } = &self.nodes[node];
                    if row.is_some() {
                        put_number(out, u64::from(*own));
                        if !children.is_empty() {
                            out.push(b' ');
                        }
                    }
                    match &children[..] {
                        [child] => steps.push(Step::Node(*child)),
                        children => steps.extend(children.iter().rev().map(|child| Step::Open(*child))),
                    }
                }
            }
        }
    }

    fn adopt(&mut self, parent: usize, child: usize) {
        self.nodes[parent].children.push(child);
        self.nodes[child].parent = Some(parent);
    }

    fn is_dummy(&self, node: usize) -> bool {
        self.nodes[node].row.is_none()
    }

    /// The row that stands for a tree: its own, or that of a dummy's first child.
    fn front(&self, mut node: usize) -> Option<usize> {
        loop {
            let Node { row, children, .. } = &self.nodes[node];
            match row {
                Some(row) => return Some(*row),
                None => node = *children.first()?,
            }
        }
    }
}

/// THREAD=ORDEREDSUBJECT: messages of one base subject, the oldest above the others.
pub fn by_subject(rows: &[ThreadRow]) -> Forest {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|row| (rows[*row].date, rows[*row].number));
    let mut forest = Forest::default();
    let mut threads: HashMap<Option<Label>, usize> = HashMap::new();
    for row in order {
        let node = forest.nodes.len();
        forest.nodes.push(Node { row: Some(row), number: rows[row].number, ..Node::default() });
        match threads.get(&rows[row].subject) {
            Some(root) => forest.adopt(*root, node),
            None => {
                threads.insert(rows[row].subject, node);
                forest.roots.push(node);
            }
        }
    }
    forest
}

/// THREAD=REFERENCES. Messages that name their parent are placed first, then the gaps are filled from the longer
/// lists of others, so the result does not depend on which of two messages came first. Costs O(references).
pub fn by_references(rows: &[ThreadRow]) -> Forest {
    let mut linker = Linker::new(rows);
    linker.link(rows);
    let mut forest = linker.forest;
    prune(&mut forest);
    sort_siblings(&mut forest, rows);
    merge_subjects(&mut forest, rows);
    sort_siblings(&mut forest, rows);
    forest
}

/// Step 1: who answers whom.
struct Linker {
    forest: Forest,
    by_id: HashMap<Label, usize>,
    /// The node of each row.
    nodes: Vec<usize>,
    /// Union-find over trees: two nodes of one tree lead to the same node. Keeps cycles out at next to no cost.
    leader: Vec<usize>,
}

impl Linker {
    fn new(rows: &[ThreadRow]) -> Linker {
        let mut linker = Linker {
            forest: Forest::default(),
            by_id: HashMap::new(),
            nodes: Vec::new(),
            leader: Vec::new(),
        };
        for (index, row) in rows.iter().enumerate() {
            let node = linker.node(Some(index), row.number);
            linker.nodes.push(node);
            if let Some(id) = row.id {
                // Of two messages with one id the second has none (RFC 5256, section 3).
                linker.by_id.entry(id).or_insert(node);
            }
        }
        linker
    }

    fn node(&mut self, row: Option<usize>, number: u32) -> usize {
        let node = self.forest.nodes.len();
        self.forest.nodes.push(Node { row, number, ..Node::default() });
        self.leader.push(node);
        node
    }

    fn named(&mut self, id: Label) -> usize {
        if let Some(node) = self.by_id.get(&id) {
            return *node;
        }
        let node = self.node(None, 0);
        self.by_id.insert(id, node);
        node
    }

    fn link(&mut self, rows: &[ThreadRow]) {
        for (row, node) in rows.iter().zip(self.nodes.clone()) {
            if let Some(last) = row.references.last() {
                let parent = self.named(*last);
                self.place(parent, node);
            }
        }
        for row in rows {
            let chain: Vec<usize> = row.references.iter().map(|id| self.named(*id)).collect();
            chain.windows(2).for_each(|pair| self.place(pair[0], pair[1]));
        }
    }

    /// Puts a tree's root below a node, unless it has a parent or that would make a circle.
    fn place(&mut self, parent: usize, child: usize) {
        let (above, below) = (self.find(parent), self.find(child));
        if self.forest.nodes[child].parent.is_none() && above != below {
            self.leader[below] = above;
            self.forest.adopt(parent, child);
        }
    }

    fn find(&mut self, node: usize) -> usize {
        let mut at = node;
        while self.leader[at] != at {
            self.leader[at] = self.leader[self.leader[at]];
            at = self.leader[at];
        }
        at
    }
}

/// Steps 2 and 3: roots, without the dummies that are not needed.
fn prune(forest: &mut Forest) {
    // Children come after their parents in this order, so each is settled before its parent is.
    let mut order: Vec<usize> =
        (0..forest.nodes.len()).filter(|node| forest.nodes[*node].parent.is_none()).collect();
    let roots = order.clone();
    let mut at = 0;
    while at < order.len() {
        order.extend_from_slice(&forest.nodes[order[at]].children);
        at += 1;
    }
    for node in order.into_iter().rev() {
        let mut kept = Vec::new();
        for child in std::mem::take(&mut forest.nodes[node].children) {
            match forest.is_dummy(child) {
                true => kept.append(&mut forest.nodes[child].children),
                false => kept.push(child),
            }
        }
        forest.nodes[node].children = kept;
    }
    for root in roots {
        match (forest.is_dummy(root), &forest.nodes[root].children[..]) {
            (true, []) => {}
            (true, [only]) => forest.roots.push(*only),
            _ => forest.roots.push(root),
        }
    }
    for root in &forest.roots {
        forest.nodes[*root].parent = None;
    }
}

/// Steps 4 and 6: siblings by date, then number; a dummy by its first child.
fn sort_siblings(forest: &mut Forest, rows: &[ThreadRow]) {
    let key = |forest: &Forest, node: usize| forest.front(node).map(|row| (rows[row].date, rows[row].number));
    for node in 0..forest.nodes.len() {
        let mut children = std::mem::take(&mut forest.nodes[node].children);
        // Only roots are dummies, so what a child is sorted by is its own.
        children.sort_by_cached_key(|child| key(forest, *child));
        forest.nodes[node].children = children;
    }
    let mut roots = std::mem::take(&mut forest.roots);
    roots.sort_by_cached_key(|root| key(forest, *root));
    forest.roots = roots;
}

/// Step 5: threads of one base subject become one.
fn merge_subjects(forest: &mut Forest, rows: &[ThreadRow]) {
    let subject = |forest: &Forest, root: usize| rows[forest.front(root)?].subject;
    let is_reply =
        |forest: &Forest, root: usize| forest.nodes[root].row.is_some_and(|row| rows[row].is_reply);
    let mut table: HashMap<Label, usize> = HashMap::new();
    for root in forest.roots.clone() {
        let Some(subject) = subject(forest, root) else { continue };
        let entry = table.entry(subject).or_insert(root);
        let is_better = forest.is_dummy(root) || is_reply(forest, *entry) && !is_reply(forest, root);
        if !forest.is_dummy(*entry) && is_better {
            *entry = root;
        }
    }
    let mut roots = forest.roots.clone();
    for root in std::mem::take(&mut forest.roots) {
        let entry =
            subject(forest, root).and_then(|subject| table.get_mut(&subject)).filter(|entry| **entry != root);
        // One that stood in the table may be below a new dummy already.
        let Some(entry) = entry.filter(|_| forest.nodes[root].parent.is_none()) else { continue };
        if forest.is_dummy(*entry) && forest.is_dummy(root) {
            for child in std::mem::take(&mut forest.nodes[root].children) {
                forest.adopt(*entry, child);
            }
            forest.nodes[root].parent = Some(*entry);
        } else if forest.is_dummy(*entry) || is_reply(forest, root) && !is_reply(forest, *entry) {
            forest.adopt(*entry, root);
        } else {
            let dummy = forest.nodes.len();
            forest.nodes.push(Node::default());
            roots.push(dummy);
            forest.adopt(dummy, std::mem::replace(entry, dummy));
            forest.adopt(dummy, root);
        }
    }
    roots.retain(|root| forest.nodes[*root].parent.is_none());
    forest.roots = roots;
}
