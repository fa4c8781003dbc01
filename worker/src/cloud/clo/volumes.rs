//! Network volumes, and the local disks that show in a list of their own.

use reqwest::Method;
use serde_json::json;

use super::call::Call;
use super::client::Clo;
use super::error::CloError;
use super::model::{LocalDisk, Volume};

impl Clo {
    /// All network volumes of the project.
    pub async fn list_volumes(&self) -> Result<Vec<Volume>, CloError> {
        self.list(
            "list volumes",
            &format!("/v2/projects/{}/volumes", self.project()),
        )
        .await
    }

    /// All volumes of exactly this name.
    pub async fn volumes_named(&self, name: &str) -> Result<Vec<Volume>, CloError> {
        Ok(self
            .list_volumes()
            .await?
            .into_iter()
            .filter(|volume| volume.name == name)
            .collect())
    }

    /// All local disks of the project. They cannot be attached, detached or deleted.
    pub async fn list_local_disks(&self) -> Result<Vec<LocalDisk>, CloError> {
        self.list(
            "list local disks",
            &format!("/v2/projects/{}/local-disks", self.project()),
        )
        .await
    }

    /// One volume, or `None` if CLO says that there is none.
    pub async fn volume(&self, id: &str) -> Result<Option<Volume>, CloError> {
        let operation = format!("read volume {id}");
        let path = format!("/v2/volumes/{}/detail", self.checked(&operation, id)?);
        self.result_if_exists(Call::new(Method::GET, operation, path))
            .await
    }

    /// Makes a volume of `size` GB and returns its id. The name stays as it is, so that it can be
    /// found again. Never call this without [`super::adopt_or_create`].
    pub async fn create_volume(&self, name: &str, size: u64) -> Result<String, CloError> {
        let path = format!("/v2/projects/{}/volumes", self.project());
        let body = json!({ "name": name, "size": size, "autorename": false });
        self.created(Call::new(Method::POST, format!("create volume {name}"), path).json(&body))
            .await
    }

    /// Starts to attach a volume. The answer says nothing: read the volume until it is in use.
    pub async fn attach_volume(&self, id: &str, server: &str) -> Result<(), CloError> {
        let operation = format!("attach volume {id} to server {server}");
        let path = format!("/v2/volumes/{}/attach", self.checked(&operation, id)?);
        let body = json!({ "server_id": self.checked(&operation, server)? });
        self.done(Call::new(Method::POST, operation, path).json(&body))
            .await
    }

    /// Starts to detach a volume, without force and without touching the fstab of the server.
    pub async fn detach_volume(&self, id: &str) -> Result<(), CloError> {
        let operation = format!("detach volume {id}");
        let path = format!("/v2/volumes/{}/detach", self.checked(&operation, id)?);
        let body = json!({ "clear_fstab": false, "force": false });
        self.done(Call::new(Method::POST, operation, path).json(&body))
            .await
    }

    /// Deletes a volume, without force: one that is in use is refused.
    pub async fn delete_volume(&self, id: &str) -> Result<(), CloError> {
        let operation = format!("delete volume {id}");
        let path = format!("/v2/volumes/{}", self.checked(&operation, id)?);
        let body = json!({ "clear_fstab": false, "force": false });
        self.deleted(Call::new(Method::DELETE, operation, path).json(&body))
            .await
    }
}
