//! The endpoint's key, a file that only the user can read, and the endpoint itself.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use data_encoding::BASE32_NOPAD;
use postmerge::member::SecretKey;
use postmerge::net::Endpoint;
use postmerge::replica::Replica;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

/// The file in the store's directory.
pub(crate) fn file(store: &Path) -> PathBuf {
    store.join("endpoint")
}

/// Draws a key.
pub(crate) fn new_key() -> anyhow::Result<SecretKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| anyhow!("the system gives no random numbers: {error}"))?;
    Ok(SecretKey::from_seed(seed))
}

/// Writes the key, durably and for nobody else to read.
pub(crate) fn write_key(store: &Path, key: &SecretKey) -> anyhow::Result<()> {
    write_file(store, &file(store), key)
}

/// The key that takes the place of the other one once the account knows it.
fn next_file(store: &Path) -> PathBuf {
    store.join("endpoint.next")
}

/// Writes the key that is to come.
pub(crate) fn write_next_key(store: &Path, key: &SecretKey) -> anyhow::Result<()> {
    write_file(store, &next_file(store), key)
}

/// Puts the key that is to come in its place, if the account knows this replica by it: also after a crash in between.
pub(crate) fn take_next_key(store: &Path, replica: &Replica) -> anyhow::Result<()> {
    let next = next_file(store);
    if !next.exists() {
        return Ok(());
    }
    let (key, peers) = (read_file(&next)?, replica.peers()?);
    if peers.iter().any(|peer| peer.oneself && peer.member.endpoint == key.peer_id()) {
        std::fs::rename(&next, file(store))
            .and_then(|()| std::fs::File::open(store)?.sync_all())
            .with_context(|| format!("cannot put {} in its place", next.display()))?;
    }
    Ok(())
}

fn write_file(store: &Path, path: &Path, key: &SecretKey) -> anyhow::Result<()> {
    let tmp = store.join("endpoint.tmp");
    let write = || {
        let options = &mut std::fs::OpenOptions::new();
        let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&tmp)?;
        let text = Zeroizing::new(BASE32_NOPAD.encode(key.seed()).to_ascii_lowercase());
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.sync_all()?;
        std::fs::rename(&tmp, path)?;
        std::fs::File::open(store)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads the key.
pub(crate) fn read_key(store: &Path) -> anyhow::Result<SecretKey> {
    read_file(&file(store))
}

fn read_file(path: &Path) -> anyhow::Result<SecretKey> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let upper = Zeroizing::new(text.trim().to_ascii_uppercase());
    let seed = BASE32_NOPAD.decode(upper.as_bytes()).map(Zeroizing::new).ok();
    let seed = seed.and_then(|seed| <[u8; 32]>::try_from(seed.as_slice()).ok());
    let seed = seed.with_context(|| format!("{} is no endpoint key", path.display()))?;
    Ok(SecretKey::from_seed(seed))
}

/// The key of another store, for one that is to be hosted on the same port, or else a new one.
pub(crate) fn shared_or_new_key(share: Option<&Path>) -> anyhow::Result<SecretKey> {
    match share {
        Some(other) => read_key(other),
        None => new_key(),
    }
}

/// Reads the key, or makes one where a join was cut off before there was one.
pub(crate) fn read_or_make_key(store: &Path, share: Option<&Path>) -> anyhow::Result<SecretKey> {
    if file(store).exists() {
        return read_key(store);
    }
    let key = shared_or_new_key(share)?;
    write_key(store, &key)?;
    Ok(key)
}

/// An endpoint that nobody needs to find: any port, IPv6 and IPv4 where there is IPv6.
pub(crate) fn unlisted(key: &SecretKey, runtime: &Handle) -> anyhow::Result<Endpoint> {
    let any = |address: &str| -> SocketAddr { address.parse().expect("an address") };
    match Endpoint::bind(any("[::]:0"), key, runtime) {
        Ok(endpoint) => Ok(endpoint),
        Err(_) => Ok(Endpoint::bind(any("0.0.0.0:0"), key, runtime)?),
    }
}
