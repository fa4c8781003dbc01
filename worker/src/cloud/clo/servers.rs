//! Servers.

use reqwest::Method;
use serde_json::json;

use super::call::Call;
use super::client::Clo;
use super::error::CloError;
use super::model::{NewServer, Server};

/// RAM is counted in GB. A larger number is most likely MB by mistake, and would cost a fortune.
const MOST_RAM: u32 = 512;

impl Clo {
    /// All servers of the project.
    pub async fn list_servers(&self) -> Result<Vec<Server>, CloError> {
        self.list(
            "list servers",
            &format!("/v2/projects/{}/servers", self.project()),
        )
        .await
    }

    /// All servers of exactly this name.
    pub async fn servers_named(&self, name: &str) -> Result<Vec<Server>, CloError> {
        Ok(self
            .list_servers()
            .await?
            .into_iter()
            .filter(|server| server.name == name)
            .collect())
    }

    /// One server, or `None` if CLO says that there is none.
    pub async fn server(&self, id: &str) -> Result<Option<Server>, CloError> {
        let operation = format!("read server {id}");
        let path = format!("/v2/servers/{}/detail", self.checked(&operation, id)?);
        self.result_if_exists(Call::new(Method::GET, operation, path))
            .await
    }

    /// Makes a server and returns its id. Never call this without [`super::adopt_or_create`].
    pub async fn create_server(&self, new: &NewServer) -> Result<String, CloError> {
        let operation = format!("create server {}", new.name);
        if !(1..=MOST_RAM).contains(&new.flavor.ram) {
            let reason = format!("ram is counted in GB, {} makes no sense", new.flavor.ram);
            return Err(CloError::Invalid { operation, reason });
        }
        let path = format!("/v2/projects/{}/servers", self.project());
        let mut call = Call::new(Method::POST, operation, path).json(new);
        if let Some(user_data) = &new.user_data {
            call = call.secret(user_data);
        }
        self.created(call).await
    }

    /// Deletes a server together with the volumes and addresses that are named, and with no
    /// others. Local disks go with the server. A server that is gone is success, but then its
    /// volumes and addresses were left alone.
    pub async fn delete_server(
        &self,
        id: &str,
        volumes: &[&str],
        addresses: &[&str],
    ) -> Result<(), CloError> {
        let operation = format!("delete server {id}");
        let path = format!("/v2/servers/{}", self.checked(&operation, id)?);
        for other in volumes.iter().chain(addresses) {
            self.checked(&operation, other)?;
        }
        let body = json!({ "delete_volumes": volumes, "delete_addresses": addresses });
        self.deleted(Call::new(Method::DELETE, operation, path).json(&body))
            .await
    }

    /// Restarts a server.
    pub async fn reboot_server(&self, id: &str) -> Result<(), CloError> {
        let operation = format!("reboot server {id}");
        let path = format!("/v2/servers/{}/reboot", self.checked(&operation, id)?);
        self.done(Call::new(Method::POST, operation, path)).await
    }
}
