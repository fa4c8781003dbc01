//! Load balancers and their rules.

use reqwest::Method;

use super::call::Call;
use super::client::Clo;
use super::error::CloError;
use super::model::{LoadBalancer, NewLoadBalancer, NewRule, Rule};

impl Clo {
    /// All load balancers of the project.
    pub async fn list_load_balancers(&self) -> Result<Vec<LoadBalancer>, CloError> {
        self.list(
            "list load balancers",
            &format!("/v2/projects/{}/loadbalancers", self.project()),
        )
        .await
    }

    /// All load balancers of exactly this name.
    pub async fn load_balancers_named(&self, name: &str) -> Result<Vec<LoadBalancer>, CloError> {
        Ok(self
            .list_load_balancers()
            .await?
            .into_iter()
            .filter(|balancer| balancer.name == name)
            .collect())
    }

    /// One load balancer, or `None` if CLO says that there is none.
    pub async fn load_balancer(&self, id: &str) -> Result<Option<LoadBalancer>, CloError> {
        let operation = format!("read load balancer {id}");
        let path = format!("/v2/loadbalancers/{}/detail", self.checked(&operation, id)?);
        self.result_if_exists(Call::new(Method::GET, operation, path))
            .await
    }

    /// Makes a load balancer and returns its id. Never call this without [`super::adopt_or_create`].
    pub async fn create_load_balancer(&self, new: &NewLoadBalancer) -> Result<String, CloError> {
        let path = format!("/v2/projects/{}/loadbalancers", self.project());
        let call = Call::new(
            Method::POST,
            format!("create load balancer {}", new.name),
            path,
        );
        self.created(call.json(new)).await
    }

    /// Deletes a load balancer.
    pub async fn delete_load_balancer(&self, id: &str) -> Result<(), CloError> {
        let operation = format!("delete load balancer {id}");
        let path = format!("/v2/loadbalancers/{}", self.checked(&operation, id)?);
        self.deleted(Call::new(Method::DELETE, operation, path))
            .await
    }

    /// All rules of a load balancer.
    pub async fn list_rules(&self, balancer: &str) -> Result<Vec<Rule>, CloError> {
        let operation = format!("list rules of load balancer {balancer}");
        let path = format!(
            "/v2/loadbalancers/{}/rules",
            self.checked(&operation, balancer)?
        );
        self.list(&operation, &path).await
    }

    /// Makes a rule and returns its id. Its ports and address are its name: look for them first.
    pub async fn create_rule(&self, balancer: &str, new: &NewRule) -> Result<String, CloError> {
        let operation = format!(
            "create rule {} to {} of load balancer {balancer}",
            new.external_protocol_port, new.address_id
        );
        let path = format!(
            "/v2/loadbalancers/{}/rules",
            self.checked(&operation, balancer)?
        );
        self.created(Call::new(Method::POST, operation, path).json(new))
            .await
    }

    /// Deletes a rule.
    pub async fn delete_rule(&self, id: &str) -> Result<(), CloError> {
        let operation = format!("delete rule {id}");
        let path = format!("/v2/loadbalancers/rules/{}", self.checked(&operation, id)?);
        self.deleted(Call::new(Method::DELETE, operation, path))
            .await
    }
}
