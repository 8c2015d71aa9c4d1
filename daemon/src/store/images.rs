//! The names of images and what they point to.

use std::borrow::Cow;
use std::time::SystemTime;

use core_api::Timestamp;
use core_api::images::Image;
use core_api::types::Descriptor;
use prost::Message;
use redb::{ReadableTable, TableDefinition};
use tonic::Status;

use super::{Failure, Store, decode, key, list, namespaces};
use crate::content::digest::{Digest, is_digest};
use crate::filter::{Fields, Filters, in_map};
use crate::{ids, status};

/// Namespace and name to the image.
pub(super) const IMAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("images");

/// The longest name, in bytes: a name is part of a key.
const NAME_LIMIT: usize = 4096;

impl Fields for Image {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        let target = |field: fn(&Descriptor) -> &str| Some(field(self.target.as_ref()?).into());
        match (path[0].as_str(), &path[1..]) {
            ("name", []) => Some(self.name.as_str().into()),
            ("target", [name]) if name == "digest" => target(|target| &target.digest),
            ("target", [name]) if name == "mediatype" => target(|target| &target.media_type),
            ("labels", rest) => return in_map(&self.labels, rest),
            ("annotations", rest) => return in_map(&self.target.as_ref()?.annotations, rest),
            _ => None,
        }
        .filter(|value: &Cow<'_, str>| !value.is_empty())
    }
}

fn unknown(name: &str) -> Failure {
    status::not_found(format_args!("image {name:?}")).into()
}

fn check(image: &Image) -> Result<(), Status> {
    let name = image.name.as_str();
    if name.is_empty() {
        return Err(status::invalid("image name must not be empty"));
    }
    if name.len() > NAME_LIMIT || name.contains('\0') {
        let text = format!("an image name has at most {NAME_LIMIT} bytes and no NUL");
        return Err(status::invalid(text));
    }
    ids::check_labels(&image.labels)?;
    let Some(target) = &image.target else {
        return Err(status::invalid("image target must be set"));
    };
    if !is_digest(&target.digest) {
        // For its words.
        Digest::parse(&target.digest)?;
    }
    if target.size == 0 {
        return Err(status::invalid("Target.Size must be > 0"));
    }
    if target.media_type.is_empty() {
        return Err(status::invalid("Target.MediaType must be set"));
    }
    Ok(())
}

/// Applies to `stored` what `paths` names of `wanted`; labels and target when empty.
fn apply(stored: &mut Image, wanted: &Image, paths: &[String]) -> Result<(), Status> {
    if paths.is_empty() {
        stored.labels.clone_from(&wanted.labels);
        stored.target.clone_from(&wanted.target);
    }
    for path in paths {
        match path.as_str() {
            "labels" => stored.labels.clone_from(&wanted.labels),
            "target" => stored.target.clone_from(&wanted.target),
            "annotations" => {
                let annotations = wanted.target.clone().unwrap_or_default().annotations;
                stored.target.get_or_insert_default().annotations = annotations;
            }
            _ => {
                let (labels, annotation);
                if let Some(key) = path.strip_prefix("labels.") {
                    labels = wanted.labels.get(key).cloned().unwrap_or_default();
                    stored.labels.insert(key.to_owned(), labels);
                } else if let Some(key) = path.strip_prefix("annotations.") {
                    annotation = wanted.target.as_ref().and_then(|t| t.annotations.get(key));
                    let annotation = annotation.cloned().unwrap_or_default();
                    let target = stored.target.get_or_insert_default();
                    target.annotations.insert(key.to_owned(), annotation);
                } else {
                    return Err(status::invalid(format_args!(
                        "cannot update {path:?} field on image {:?}",
                        stored.name
                    )));
                }
            }
        }
    }
    Ok(())
}

impl Store {
    /// One image.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn image(&self, namespace: &str, name: &str) -> Result<Image, Status> {
        self.read(|transaction| {
            let table = transaction.open_table(IMAGES)?;
            let found = table.get(key(namespace, name).as_str())?;
            decode(found.ok_or_else(|| unknown(name))?.value())
        })
    }

    /// The images that pass `filters`, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub fn images(&self, namespace: &str, filters: &Filters) -> Result<Vec<Image>, Status> {
        let mut found: Vec<Image> =
            self.read(|transaction| list(&transaction.open_table(IMAGES)?, namespace))?;
        found.retain(|image| filters.hold(image));
        Ok(found)
    }

    /// Stores a new image, made at `moment` or now.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for what lacks a name or a target.
    pub async fn create_image(
        &self,
        namespace: String,
        mut new: Image,
        moment: Option<Timestamp>,
    ) -> Result<Image, Status> {
        check(&new)?;
        new.labels = ids::without_empty(new.labels);
        new.created_at = moment.or_else(|| Some(SystemTime::now().into()));
        new.updated_at = new.created_at;
        self.write(move |transaction| {
            namespaces::ensure(transaction, &namespace)?;
            let mut table = transaction.open_table(IMAGES)?;
            let key = key(&namespace, &new.name);
            if table.get(key.as_str())?.is_some() {
                return Err(status::already_exists(format_args!("image {:?}", new.name)).into());
            }
            table.insert(key.as_str(), new.encode_to_vec().as_slice())?;
            Ok(new)
        })
        .await
    }

    /// Changes the fields that `paths` names: `labels`, `target` and `annotations`, whole or by
    /// key; labels and target when it is empty.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for another path or an image that would not be valid.
    pub async fn update_image(
        &self,
        namespace: String,
        wanted: Image,
        paths: Vec<String>,
        moment: Option<Timestamp>,
    ) -> Result<Image, Status> {
        if wanted.name.is_empty() {
            return Err(status::invalid("image name is required for update"));
        }
        self.write(move |transaction| {
            let mut table = transaction.open_table(IMAGES)?;
            let key = key(&namespace, &wanted.name);
            let mut image: Image = {
                let found = table.get(key.as_str())?;
                decode(found.ok_or_else(|| unknown(&wanted.name))?.value())?
            };
            apply(&mut image, &wanted, &paths)?;
            check(&image)?;
            image.labels = ids::without_empty(image.labels);
            image.updated_at = moment.or_else(|| Some(SystemTime::now().into()));
            table.insert(key.as_str(), image.encode_to_vec().as_slice())?;
            Ok(image)
        })
        .await
    }

    /// Removes an image; with `target` only while it points there.
    ///
    /// # Errors
    /// `NotFound`, also when it points elsewhere.
    pub async fn delete_image(
        &self,
        namespace: String,
        name: String,
        target: Option<Descriptor>,
    ) -> Result<(), Status> {
        self.write(move |transaction| {
            let mut table = transaction.open_table(IMAGES)?;
            let key = key(&namespace, &name);
            let Some(found) = table.remove(key.as_str())? else {
                return Err(unknown(&name));
            };
            let image: Image = decode(found.value())?;
            let elsewhere = |wanted: Descriptor| {
                image
                    .target
                    .is_none_or(|target| target.digest != wanted.digest)
            };
            if target.is_some_and(elsewhere) {
                return Err(status::not_found(format_args!(
                    "image {name:?} has a different target"
                ))
                .into());
            }
            Ok(())
        })
        .await
    }
}
