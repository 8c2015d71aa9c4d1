//! The store's rules, its durability, and what it does with a file that is damaged.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use core_api::Any;
use core_api::containers::{Container, container::Runtime};
use core_api::leases::Lease;
use core_api::namespaces::Namespace;
use proptest::prelude::*;
use tonic::Code;

use super::*;
use crate::filter::Filters;

fn record(id: &str, size: usize) -> Container {
    let spec = Any {
        type_url: "t".into(),
        value: vec![7; size],
    };
    Container {
        id: id.into(),
        runtime: Some(Runtime {
            name: "io.containerd.runc.v2".into(),
            options: None,
        }),
        spec: Some(spec),
        ..Container::default()
    }
}

fn all() -> Filters {
    Filters::parse::<&str>(&[]).unwrap()
}

/// A file with some hundred records, as a daemon leaves it that ends well.
async fn filled(path: &Path) {
    let store = Store::open(path).unwrap();
    for index in 0..40 {
        let new = record(&format!("c{index}"), 3000);
        store.create_container("ns".into(), new).await.unwrap();
    }
    let lease = Lease {
        id: "l".into(),
        ..Lease::default()
    };
    store.create_lease("ns".into(), lease).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_is_found_at_the_start_or_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta.redb");
    filled(&path).await;
    let whole = fs::read(&path).unwrap();
    let store = Store::open(&path).unwrap();
    let records = store.containers("ns", &all()).unwrap();
    drop(store);
    let (mut refused, mut kept) = (0, 0);
    for page in 0..whole.len().div_ceil(4096) {
        for (offset, bytes) in [
            (0, [0xff; 64]),
            (100, [0; 64]),
            (2000, [0x5a; 64]),
            (4032, [1; 64]),
        ] {
            fs::write(&path, &whole).unwrap();
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            let at = (page * 4096 + offset) as u64;
            file.write_all_at(&bytes, at).unwrap();
            drop(file);
            match Store::open(&path) {
                Ok(store) => {
                    assert_eq!(store.containers("ns", &all()).unwrap(), records, "{at}");
                    kept += 1;
                }
                Err(text) => {
                    assert!(text.contains("meta.redb: damaged"), "{at}: {text}");
                    assert!(text.contains("move it away"), "{at}: {text}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 20 && kept > 0, "{refused} {kept}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_told_from_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta.redb");
    filled(&path).await;
    let whole = fs::read(&path).unwrap();
    let mut magic = whole.clone();
    magic[..4].copy_from_slice(b"bolt");
    let half = whole[..whole.len() / 2].to_vec();
    let few = whole[..100].to_vec();
    let rubbish: Vec<u8> = (0..20_000_u32)
        .flat_map(|n| n.wrapping_mul(n).to_le_bytes())
        .collect();
    for contents in [magic, half, few, rubbish, b"#!/bin/sh\n".to_vec()] {
        fs::write(&path, &contents).unwrap();
        let text = Store::open(&path).unwrap_err();
        assert!(text.contains("meta.redb: damaged"), "{text}");
        assert_eq!(fs::read(&path).unwrap().len(), contents.len(), "left alone");
    }
    fs::write(&path, "").unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.containers("ns", &all()).unwrap(), []);
    drop(store);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(Store::open(&path).unwrap_err().contains("meta.redb: "));
}

#[tokio::test]
async fn a_second_daemon_is_kept_out_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("io.wherry.metadata.v1");
    fs::create_dir(&own).unwrap();
    let path = own.join("meta.redb");
    let first = Store::open(&path).unwrap();
    let text = Store::open(&path).unwrap_err();
    let root = format!("root folder {}: in use", dir.path().display());
    assert!(text.starts_with(&root), "{text}");
    drop(first);
    Store::open(&path).unwrap();

    let bolt = dir.path().join("io.containerd.metadata.v1.bolt");
    fs::create_dir(&bolt).unwrap();
    let db = fs::File::create(bolt.join("meta.db")).unwrap();
    Store::open(&path).unwrap();
    db.lock().unwrap();
    let text = Store::open(&path).unwrap_err();
    assert!(text.contains("running containerd"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_come_together_share_a_turn_of_the_disk_and_all_is_there() {
    const EACH: usize = 20;
    const CLIENTS: usize = 16;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta.redb");
    let store = Store::open(&path).unwrap();
    let started = Instant::now();
    for index in 0..EACH {
        let new = record(&format!("one{index}"), 3000);
        store.create_container("ns".into(), new).await.unwrap();
    }
    let alone = started.elapsed() / u32::try_from(EACH).unwrap();
    let started = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let store = store.clone();
        clients.spawn(async move {
            for index in 0..EACH {
                let id = format!("c{client}-{index}");
                let created = store.create_container("ns".into(), record(&id, 3000));
                created.await.unwrap();
                // Refusals in between: they must neither lose nor delay anybody.
                let taken = store.create_container("ns".into(), record(&id, 1)).await;
                assert_eq!(taken.unwrap_err().code(), Code::AlreadyExists);
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    let count = u32::try_from(EACH * CLIENTS).unwrap();
    let together = started.elapsed() / count;
    println!("a write alone: {alone:?}; of {CLIENTS} clients at once: {together:?}");
    drop(store);
    let store = Store::open(&path).unwrap();
    let found = store.containers("ns", &all()).unwrap().len();
    assert_eq!(found, EACH + EACH * CLIENTS);
}

#[tokio::test]
async fn a_panic_costs_the_request_and_nothing_that_was_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("meta.redb")).unwrap();
    store
        .create_container("ns".into(), record("c", 9))
        .await
        .unwrap();
    let read: Result<(), Status> = store.read(|_| panic!("a page that makes no sense"));
    assert_eq!(read.unwrap_err().code(), Code::DataLoss);
    store.container("ns", "c").unwrap();
    let write: Result<(), Status> = store
        .write(|transaction| {
            transaction.open_table(CONTAINERS)?.remove("ns\0c")?;
            panic!("a page that makes no sense")
        })
        .await;
    assert_eq!(write.unwrap_err().code(), Code::DataLoss);
    store.container("ns", "c").unwrap();
    store
        .create_container("ns".into(), record("d", 9))
        .await
        .unwrap();
}

/// What clients ask of the store, on few names so that they meet.
#[derive(Debug, Clone)]
enum Asked {
    Create(u8, u8, u8),
    Update(u8, u8, u8),
    Delete(u8, u8),
    Lease(u8, u8),
    Unlease(u8, u8),
    Namespace(u8),
    Unnamespace(u8),
    Reopen,
}

fn asked() -> impl Strategy<Value = Asked> {
    let (ns, id, value) = (0..3_u8, 0..4_u8, 0..5_u8);
    prop_oneof![
        (ns.clone(), id.clone(), value.clone()).prop_map(|(n, i, v)| Asked::Create(n, i, v)),
        (ns.clone(), id.clone(), value).prop_map(|(n, i, v)| Asked::Update(n, i, v)),
        (ns.clone(), id.clone()).prop_map(|(n, i)| Asked::Delete(n, i)),
        (ns.clone(), id.clone()).prop_map(|(n, i)| Asked::Lease(n, i)),
        (ns.clone(), id).prop_map(|(n, i)| Asked::Unlease(n, i)),
        ns.clone().prop_map(Asked::Namespace),
        ns.prop_map(Asked::Unnamespace),
        Just(Asked::Reopen),
    ]
}

/// The same rules, in a few lines.
#[derive(Debug, Default)]
struct Model {
    namespaces: BTreeMap<String, ()>,
    containers: BTreeMap<(String, String), String>,
    leases: BTreeMap<(String, String), ()>,
}

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.map_or_else(|refused| refused.code(), |_| Code::Ok)
}

async fn ask(store: &Store, model: &mut Model, asked: Asked) -> (Code, Code) {
    let ns = |n: u8| format!("n{n}");
    let key = |n: u8, i: u8| (format!("n{n}"), format!("i{i}"));
    match asked {
        Asked::Create(n, i, v) => {
            let new = Container {
                image: v.to_string(),
                ..record(&key(n, i).1, 10)
            };
            let expected = if model.containers.contains_key(&key(n, i)) {
                Code::AlreadyExists
            } else {
                model.namespaces.insert(ns(n), ());
                model.containers.insert(key(n, i), v.to_string());
                Code::Ok
            };
            (code(store.create_container(ns(n), new).await), expected)
        }
        Asked::Update(n, i, v) => {
            let wanted = Container {
                image: v.to_string(),
                ..record(&key(n, i).1, 10)
            };
            let expected = match model.containers.get_mut(&key(n, i)) {
                Some(image) => {
                    *image = v.to_string();
                    Code::Ok
                }
                None => Code::NotFound,
            };
            let paths = vec!["image".to_owned()];
            (
                code(store.update_container(ns(n), wanted, paths).await),
                expected,
            )
        }
        Asked::Delete(n, i) => {
            let expected = model.containers.remove(&key(n, i));
            let expected = expected.map_or(Code::NotFound, |_| Code::Ok);
            (
                code(store.delete_container(ns(n), key(n, i).1).await),
                expected,
            )
        }
        Asked::Lease(n, i) => {
            let new = Lease {
                id: key(n, i).1,
                ..Lease::default()
            };
            model.namespaces.insert(ns(n), ());
            let expected = model.leases.insert(key(n, i), ());
            let expected = expected.map_or(Code::Ok, |()| Code::AlreadyExists);
            (code(store.create_lease(ns(n), new).await), expected)
        }
        Asked::Unlease(n, i) => {
            let expected = model.leases.remove(&key(n, i));
            let expected = expected.map_or(Code::NotFound, |()| Code::Ok);
            (code(store.delete_lease(ns(n), key(n, i).1).await), expected)
        }
        Asked::Namespace(n) => {
            let new = Namespace {
                name: ns(n),
                ..Namespace::default()
            };
            let expected = model.namespaces.insert(ns(n), ());
            let expected = expected.map_or(Code::Ok, |()| Code::AlreadyExists);
            (code(store.create_namespace(new).await), expected)
        }
        Asked::Unnamespace(n) => {
            let used = model.containers.keys().any(|key| key.0 == ns(n));
            let expected = if used {
                Code::FailedPrecondition
            } else if model.namespaces.remove(&ns(n)).is_some() {
                model.leases.retain(|key, ()| key.0 != ns(n));
                Code::Ok
            } else {
                Code::NotFound
            };
            (code(store.delete_namespace(ns(n)).await), expected)
        }
        Asked::Reopen => (Code::Ok, Code::Ok),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_store_keeps_to_its_rules(all_asked in proptest::collection::vec(asked(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("meta.redb");
            let mut store = Some(Store::open(&path).unwrap());
            let mut model = Model::default();
            for asked in all_asked {
                if matches!(asked, Asked::Reopen) {
                    drop(store.take());
                    store = Some(Store::open(&path).unwrap());
                }
                let store = store.as_ref().unwrap();
                let (answer, expected) = ask(store, &mut model, asked.clone()).await;
                assert_eq!(answer, expected, "{asked:?}");
                let names: Vec<String> =
                    store.namespaces().unwrap().into_iter().map(|n| n.name).collect();
                assert_eq!(names, model.namespaces.keys().cloned().collect::<Vec<_>>());
                for n in 0..3_u8 {
                    let ns = format!("n{n}");
                    let found: Vec<_> = store
                        .containers(&ns, &all())
                        .unwrap()
                        .into_iter()
                        .map(|c| ((ns.clone(), c.id), c.image))
                        .collect();
                    let wanted: Vec<_> = model.containers.clone().into_iter()
                        .filter(|entry| entry.0.0 == ns).collect();
                    assert_eq!(found, wanted);
                    let held = store.leases(&ns, &all()).unwrap().len();
                    let wanted = model.leases.keys().filter(|key| key.0 == ns).count();
                    assert_eq!(held, wanted);
                }
            }
        });
    }
}
