//! IP addresses. CLO gives them no name, so one that we make is known by its id only.

use reqwest::Method;
use serde_json::json;

use super::call::Call;
use super::client::Clo;
use super::error::CloError;
use super::model::{Address, Entity};

impl Clo {
    /// All addresses of the project.
    pub async fn list_addresses(&self) -> Result<Vec<Address>, CloError> {
        self.list(
            "list addresses",
            &format!("/v2/projects/{}/addresses", self.project()),
        )
        .await
    }

    /// One address, or `None` if CLO says that there is none.
    pub async fn address(&self, id: &str) -> Result<Option<Address>, CloError> {
        let operation = format!("read address {id}");
        let path = format!("/v2/addresses/{}/detail", self.checked(&operation, id)?);
        self.result_if_exists(Call::new(Method::GET, operation, path))
            .await
    }

    /// Makes an external address and returns its id. It has no name to look for, so after an
    /// ambiguous answer a free address may be left over; it costs money but does no harm.
    pub async fn create_address(&self, ddos_protection: bool) -> Result<String, CloError> {
        let path = format!("/v2/projects/{}/addresses", self.project());
        let body = json!({ "ddos_protection": ddos_protection });
        self.created(Call::new(Method::POST, "create an address", path).json(&body))
            .await
    }

    /// Attaches an address to a server or load balancer.
    pub async fn attach_address(&self, id: &str, entity: Entity, to: &str) -> Result<(), CloError> {
        let operation = format!("attach address {id} to {to}");
        let path = format!("/v2/addresses/{}/attach", self.checked(&operation, id)?);
        let body = json!({ "id": self.checked(&operation, to)?, "entity": entity });
        self.done(Call::new(Method::POST, operation, path).json(&body))
            .await
    }

    /// Takes an address off what it is attached to. The address stays ours.
    pub async fn detach_address(&self, id: &str) -> Result<(), CloError> {
        let operation = format!("detach address {id}");
        let path = format!("/v2/addresses/{}/detach", self.checked(&operation, id)?);
        self.done(Call::new(Method::POST, operation, path)).await
    }

    /// Gives an address back. Somebody else may get its number next.
    pub async fn delete_address(&self, id: &str) -> Result<(), CloError> {
        let operation = format!("delete address {id}");
        let path = format!("/v2/addresses/{}", self.checked(&operation, id)?);
        self.deleted(Call::new(Method::DELETE, operation, path))
            .await
    }
}
