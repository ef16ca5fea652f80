//! The endpoint's key, a file that only the user can read, and the endpoint itself.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use data_encoding::BASE32_NOPAD;
use postmerge::member::SecretKey;
use postmerge::net::Endpoint;
use tokio::runtime::Handle;

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
    let (path, tmp) = (file(store), store.join("endpoint.tmp"));
    let write = || {
        let options = &mut std::fs::OpenOptions::new();
        let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&tmp)?;
        out.write_all(BASE32_NOPAD.encode(key.seed()).to_ascii_lowercase().as_bytes())?;
        out.write_all(b"\n")?;
        out.sync_all()?;
        std::fs::rename(&tmp, &path)?;
        std::fs::File::open(store)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads the key.
pub(crate) fn read_key(store: &Path) -> anyhow::Result<SecretKey> {
    let path = file(store);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let seed = BASE32_NOPAD.decode(text.trim().to_ascii_uppercase().as_bytes()).ok();
    let seed = seed.and_then(|seed| <[u8; 32]>::try_from(seed).ok());
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
