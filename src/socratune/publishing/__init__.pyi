from .annotators import ANNOTATORS as ANNOTATORS, export_answers as export_answers
from .bundle import MOST_PAIRS as MOST_PAIRS, write_bundle as write_bundle
from .card import dataset_card as dataset_card, model_card as model_card, public_hosts as public_hosts
from .compared_page import write_comparison as write_comparison
from .compared_text import (
    COLUMNS as COLUMNS,
    compared_cells as compared_cells,
    compared_headline as compared_headline,
    compared_markdown as compared_markdown,
    compared_sentences as compared_sentences,
    verdict_words as verdict_words,
)
from .export import export_adapter as export_adapter
from .licences import (
    Licence as Licence,
    PublicBase as PublicBase,
    gguf_base_fault as gguf_base_fault,
    licence_of as licence_of,
    public_base as public_base,
)
from .live import serve_report as serve_report
from .openai_app import serve_models as serve_models
from .openai_models import Served as Served, serving_models as serving_models
from .privacy import without_data as without_data, without_paths as without_paths
from .published import (
    Published as Published,
    publish_provenance as publish_provenance,
    verify_hub as verify_hub,
    verify_published as verify_published,
)
from .report import make_report as make_report, write_report as write_report
from .trainers import TRAINERS as TRAINERS, Recipe as Recipe, trainer_faults as trainer_faults
from .views import view_rows as view_rows, write_views as write_views
