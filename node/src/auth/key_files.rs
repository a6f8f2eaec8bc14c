//! Where the node's own keys come from: files, read at the start and again when their content has changed.
//!
//! With a data folder and nothing configured, `keys/signing.pem` is made there once.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey, KeypairBytes};
use sha2::{Digest, Sha256};

use super::errors::AuthConfigError;
use super::keys::{self, Key, KeyProblem, KeySet, SigningKey};
use super::options::AuthOptions;

/// An RSA key of 16,384 bits is 13 KB; whatever is larger is another file.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;

/// Which files, in the order in which they are preferred for signing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles {
    pem: Vec<PathBuf>,
    secret: Option<PathBuf>,
}

/// The node's own keys at one time.
pub struct Keyring {
    /// None: the node verifies another issuer's tokens only.
    pub signing: Option<SigningKey>,
    pub verifying: KeySet,
    /// Of all files, to see a change.
    pub content: [u8; 32],
}

impl KeyFiles {
    /// What the options name, or the file in the data folder, which is made if it is not there.
    pub fn choose(options: &AuthOptions, data_dir: Option<&Path>) -> Result<Self, AuthConfigError> {
        let mut pem = options.signing_keys.clone();
        let secret = options.hs256_secret_file.clone();
        if pem.is_empty() && secret.is_none() {
            match data_dir {
                Some(data_dir) => pem.push(make_once(&data_dir.join("keys"))?),
                None if options.jwks_url.is_some() => {}
                None => {
                    let right = "is required without a data folder: PEM files that all nodes share, such as \
                                 `openssl genpkey -algorithm ed25519` makes; or set hs256_secret_file or jwks_url";
                    return Err(AuthConfigError::new("signing_keys", right));
                }
            }
        }
        Ok(Self { pem, secret })
    }

    pub fn read(&self) -> Result<Keyring, AuthConfigError> {
        let mut content = Sha256::new();
        let mut pairs: Vec<(SigningKey, Key)> = Vec::new();
        for path in &self.pem {
            pairs.push(read_key("signing_keys", path, &mut content, keys::from_pem)?);
        }
        if let Some(path) = &self.secret {
            let from_line = |bytes: &[u8]| keys::from_secret(without_line_end(bytes));
            pairs.push(read_key("hs256_secret_file", path, &mut content, from_line)?);
        }
        let (mut signing, verifying): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let signing = (!signing.is_empty()).then(|| signing.swap_remove(0));
        Ok(Keyring { signing, verifying: KeySet::new(verifying), content: content.finalize().into() })
    }
}

fn read_key(
    option: &'static str,
    path: &Path,
    content: &mut Sha256,
    parse: impl Fn(&[u8]) -> Result<(SigningKey, Key), KeyProblem>,
) -> Result<(SigningKey, Key), AuthConfigError> {
    let unreadable = |e| AuthConfigError::io(option, format!("{} cannot be read", path.display()), e);
    let bytes = read_bounded(path).map_err(unreadable)?;
    content.update((bytes.len() as u64).to_be_bytes());
    content.update(&bytes);
    parse(&bytes).map_err(|problem| AuthConfigError::new(option, format!("{} {problem}", path.display())))
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > KEY_FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large to be a key"));
    }
    Ok(bytes)
}

/// Editors and `openssl rand` end a file with one.
fn without_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

fn make_once(folder: &Path) -> Result<PathBuf, AuthConfigError> {
    let path = folder.join("signing.pem");
    let failed = |e| AuthConfigError::io("signing_keys", format!("{} cannot be made", path.display()), e);
    if path.try_exists().map_err(failed)? {
        return Ok(path);
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let pem = new_pem().map_err(failed)?;
    write_once(folder, &path, pem.as_bytes()).map_err(failed)?;
    Ok(path)
}

fn new_pem() -> io::Result<String> {
    let mut secret_key = [0; 32];
    getrandom::fill(&mut secret_key).map_err(io::Error::other)?;
    // Without the public half: the older form, which every program reads.
    let pair = KeypairBytes { secret_key, public_key: None };
    let pem = pair.to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?;
    Ok(pem.to_string())
}

/// Nobody sees half a key, and of two programs that start at once one key stays.
fn write_once(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = folder.join(format!(".signing.pem.{}", std::process::id()));
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let linked = match fs::hard_link(&draft, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    fs::remove_file(&draft)?;
    linked?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::auth::fixtures::*;

    fn options(signing_keys: &[&Path]) -> AuthOptions {
        AuthOptions { signing_keys: signing_keys.iter().map(|p| p.to_path_buf()).collect(), ..Default::default() }
    }

    fn said(options: &AuthOptions) -> String {
        let files = KeyFiles::choose(options, None);
        files.and_then(|files| files.read()).err().unwrap().to_string()
    }

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let files = KeyFiles::choose(&AuthOptions::default(), Some(folder.path())).unwrap();
        let first = files.read().unwrap().content;
        let mode = fs::metadata(folder.path().join("keys/signing.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = KeyFiles::choose(&AuthOptions::default(), Some(folder.path())).unwrap();
        assert_eq!(again.read().unwrap().content, first);
        assert_eq!(fs::read_dir(folder.path().join("keys")).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_came_first_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.pem");
        write_once(folder.path(), &path, b"first").unwrap();
        write_once(folder.path(), &path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }

    #[test]
    fn no_key_and_nowhere_to_make_one_is_refused() {
        assert!(said(&AuthOptions::default()).starts_with("auth.signing_keys: is required"));
    }

    #[test]
    fn with_another_issuer_alone_the_node_signs_nothing() {
        let options = AuthOptions { jwks_url: Some("https://id.example".into()), ..Default::default() };
        assert!(KeyFiles::choose(&options, None).unwrap().read().unwrap().signing.is_none());
    }

    #[test]
    fn the_first_file_signs_and_all_verify() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, secret] = ["1.pem", "2.pem", "secret"].map(|name| folder.path().join(name));
        fs::write(&first, RSA).unwrap();
        fs::write(&second, ED25519).unwrap();
        fs::write(&secret, format!("{}\n", "s".repeat(32))).unwrap();
        let options = AuthOptions { hs256_secret_file: Some(secret), ..options(&[&first, &second]) };
        let keyring = KeyFiles::choose(&options, None).unwrap().read().unwrap();
        let signing = keyring.signing.unwrap();
        assert_eq!(signing.algorithm, jsonwebtoken::Algorithm::RS256);
        assert_eq!(keyring.verifying.public().count(), 2);
    }

    #[test]
    fn a_file_that_is_missing_malformed_or_too_large_is_named_with_what_would_be_right() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.pem");
        let missing = said(&options(&[&path]));
        assert!(missing.starts_with("auth.signing_keys: ") && missing.contains("k.pem cannot be read"), "{missing}");
        fs::write(&path, "-----BEGIN PRIVATE KEY-----\nMC4CAQAw").unwrap();
        let malformed = said(&options(&[&path]));
        assert!(malformed.contains("k.pem is not a private key in PKCS#8 PEM"), "{malformed}");
        fs::write(&path, vec![b'a'; KEY_FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(said(&options(&[&path])).contains("cannot be read"));
        let short = AuthOptions { hs256_secret_file: Some(path.clone()), ..Default::default() };
        fs::write(&path, format!("{}\n", "s".repeat(31))).unwrap();
        assert!(said(&short).starts_with("auth.hs256_secret_file: "), "{}", said(&short));
    }
}
