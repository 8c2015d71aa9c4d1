//! Names as containerd allows them: ids of objects, namespaces, labels, event topics.

use std::collections::BTreeMap;

use tonic::Status;

use crate::status;

/// The longest id, in bytes.
const ID_LIMIT: usize = 76;
/// The most that key and value of one label may have together, in bytes.
const LABEL_LIMIT: usize = 4096;

/// Checks an id: runs of letters and digits, joined by single `.`, `_` or `-`.
///
/// # Errors
/// `InvalidArgument`.
pub fn check(id: &str) -> Result<(), Status> {
    if id.is_empty() {
        return Err(status::invalid("identifier must not be empty"));
    }
    if id.len() > ID_LIMIT {
        // The name itself would only blow up the message.
        let start: String = id.chars().take(ID_LIMIT).collect();
        return Err(status::invalid(format_args!(
            "identifier {start:?}... greater than maximum length ({ID_LIMIT} characters)"
        )));
    }
    let joined = id
        .split(['.', '_', '-'])
        .all(|run| !run.is_empty() && run.bytes().all(|b| b.is_ascii_alphanumeric()));
    if joined {
        return Ok(());
    }
    Err(status::invalid(format_args!(
        "identifier {id:?} must be letters and digits, joined by single '.', '_' or '-'"
    )))
}

/// Checks all labels of an object.
///
/// # Errors
/// `InvalidArgument` for the first that is too long.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Status> {
    for (key, value) in labels {
        if key.len() + value.len() > LABEL_LIMIT {
            let start: String = key.chars().take(10).collect();
            return Err(status::invalid(format_args!(
                "label key and value length ({} bytes) greater than maximum size ({LABEL_LIMIT} \
                 bytes), key: {start}",
                key.len() + value.len()
            )));
        }
    }
    Ok(())
}

/// Checks the topic of an event: a path of ids.
///
/// # Errors
/// `InvalidArgument`.
pub fn check_topic(topic: &str) -> Result<(), Status> {
    let Some(path) = topic.strip_prefix('/') else {
        return Err(status::invalid(format_args!(
            "topic {topic:?} must start with '/'"
        )));
    };
    path.split('/').try_for_each(check)
}

/// Changes the labels that `paths` names (`labels` or `labels.KEY`) to those of `wanted`; all when
/// it is empty. `refusal` words what another path is answered with.
///
/// # Errors
/// `InvalidArgument` for another path, or a label that is too long.
pub fn update_labels(
    labels: &mut BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
    paths: &[String],
    refusal: impl Fn(&str) -> String,
) -> Result<(), Status> {
    if paths.is_empty() {
        labels.clone_from(wanted);
    }
    for path in paths {
        if path == "labels" {
            labels.clone_from(wanted);
        } else if let Some(key) = path.strip_prefix("labels.") {
            let value = wanted.get(key).cloned().unwrap_or_default();
            labels.insert(key.to_owned(), value);
        } else {
            return Err(status::invalid(refusal(path)));
        }
    }
    labels.retain(|_, value| !value.is_empty());
    check_labels(labels)
}

/// Puts `labels` into the form they are stored in: a label set to nothing is no label.
pub fn without_empty(mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels.retain(|_, value| !value.is_empty());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_runs_joined_by_single_separators() {
        for id in ["a", "moby", "k8s.io", "a-b_c.d", "A1", &"x".repeat(76)] {
            check(id).unwrap();
        }
        for id in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a/b",
            "ü",
            "a b",
            &"x".repeat(77),
        ] {
            assert_eq!(check(id).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
        check_topic("/tasks/exit").unwrap();
        for topic in ["", "tasks", "/", "/tasks//exit"] {
            check_topic(topic).unwrap_err();
        }
    }

    #[test]
    fn a_label_of_4097_bytes_is_too_long() {
        let label = |n| BTreeMap::from([("k".to_owned(), "v".repeat(n))]);
        check_labels(&label(4095)).unwrap();
        check_labels(&label(4096)).unwrap_err();
    }
}
